"""Who hears what over the websocket, and what a reconnected client is told."""

import pytest

from .comfyui import ComfyUI, bars_and_save, remaining, show, types, unique

pytestmark = pytest.mark.contract


def test_greeting_tells_the_queue_and_the_client_id(comfyui: ComfyUI) -> None:
    client_id = unique()
    with comfyui.listen(client_id) as listener:
        (greeting,) = listener.messages
    status = {"exec_info": {"queue_remaining": 0}}
    assert greeting == {"type": "status", "data": {"status": status, "sid": client_id}}


@pytest.mark.parametrize("client_id", [None, ""])
def test_client_without_an_id_gets_one(comfyui: ComfyUI, client_id: str | None) -> None:
    with comfyui.listen(client_id) as listener:
        assert len(listener.messages[0]["data"]["sid"]) == 32


def test_first_message_may_ask_for_the_features(comfyui: ComfyUI) -> None:
    with comfyui.listen() as listener:
        listener.send({"type": "feature_flags", "data": {"supports_preview_metadata": True}})
        (answer,) = listener.until_type("feature_flags")
    assert answer["data"] == comfyui.get("/features").json()


def test_others_hear_only_the_length_of_the_queue(comfyui: ComfyUI) -> None:
    with comfyui.listen() as listener:
        comfyui.submit(bars_and_save(), client_id=unique())
        heard = listener.until_idle()
    assert set(types(heard)) == {"status"}
    assert remaining(heard) == [1, 1, 0]


def test_without_a_client_id_everybody_hears_progress_and_nothing_else(comfyui: ComfyUI) -> None:
    with comfyui.listen() as listener:
        comfyui.submit(bars_and_save())
        heard = listener.until_idle()
    assert set(types(heard)) == {"status", "progress_state", "progress"}


def test_reconnected_client_is_told_the_running_node_without_prompt_id(comfyui: ComfyUI) -> None:
    client_id = unique()
    with comfyui.listen(client_id) as listener:
        prompt_id = comfyui.submit(bars_and_save(seconds=60, steps=600), client_id=client_id)
        listener.until_type("executing")
    with comfyui.listen(client_id) as listener:
        (told,) = listener.until_type("executing")
        assert told == {"type": "executing", "data": {"node": "1"}}
        comfyui.post("/interrupt", json={"prompt_id": prompt_id})
        assert types(listener.until_done(prompt_id))[-3:] == [
            "execution_interrupted",
            "status",
            "executing",
        ]


def test_messages_sent_while_nobody_listens_are_lost(comfyui: ComfyUI) -> None:
    client_id = unique()
    comfyui.run({"1": show("x")}, client_id=client_id)
    with comfyui.listen(client_id) as listener:
        prompt_id = comfyui.submit({"1": show("y")}, client_id=client_id)
        heard = listener.until_done(prompt_id)
    assert types(heard).count("execution_success") == 1


def test_second_websocket_with_the_same_id_takes_over(comfyui: ComfyUI) -> None:
    client_id = unique()
    with comfyui.listen(client_id) as first, comfyui.listen(client_id) as second:
        prompt_id = comfyui.submit({"1": show("x")}, client_id=client_id)
        second.until_done(prompt_id)
        assert len(first.messages) == 1, "nothing after the greeting"


def test_closing_the_first_of_two_websockets_silences_the_second(comfyui: ComfyUI) -> None:
    client_id = unique()
    with comfyui.listen(client_id) as first, comfyui.listen(client_id) as second:
        first.close()
        comfyui.run({"1": show("x")}, client_id=client_id)
        assert len(second.messages) == 1, "nothing after the greeting"
        assert not second.closed


def test_websocket_is_also_under_api(comfyui: ComfyUI) -> None:
    with ComfyUI(f"{comfyui.url}/api").listen(unique()) as listener:
        comfyui.submit({"1": show("x")})
        assert remaining(listener.until_idle())[-1] == 0
