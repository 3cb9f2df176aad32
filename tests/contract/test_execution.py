"""What is told while a prompt runs, how it ends, and what the history says of it."""

from typing import Any

import pytest

from .comfyui import (
    ComfyUI,
    bars,
    bars_and_save,
    colour,
    history_messages,
    invert,
    remaining,
    save,
    show,
    types,
    unique,
)

pytestmark = pytest.mark.contract


def test_messages_of_one_prompt_in_their_order(comfyui: ComfyUI) -> None:
    client_id = unique()
    with comfyui.listen(client_id) as listener:
        prompt_id = comfyui.submit(bars_and_save(steps=2), client_id=client_id)
        heard = listener.until_done(prompt_id)
    assert types(heard) == [
        "status",  # queued
        "status",  # taken from the queue, and still counted
        "execution_start",
        "execution_cached",
        "progress_state",
        "executing",
        *["progress_state", "progress"] * 2,
        "progress_state",
        "progress_state",
        "executing",
        "executed",
        "progress_state",
        "execution_success",
        "status",
        "executing",
    ]
    assert remaining(heard) == [1, 1, 0]
    nodes = [m["data"]["node"] for m in heard if m["type"] == "executing"]
    assert nodes == ["1", "2", None]


def test_progress_tells_node_step_and_prompt(comfyui: ComfyUI) -> None:
    client_id = unique()
    with comfyui.listen(client_id) as listener:
        prompt_id = comfyui.submit(bars_and_save(steps=2), client_id=client_id)
        heard = listener.until_done(prompt_id)
    assert [m["data"] for m in heard if m["type"] == "progress"] == [
        {"value": step, "max": 2, "prompt_id": prompt_id, "node": "1"} for step in (1, 2)
    ]
    last = [m["data"]["nodes"] for m in heard if m["type"] == "progress_state"][-1]
    assert {node: state["state"] for node, state in last.items()} == {
        "1": "finished",
        "2": "finished",
    }


def test_history_has_the_entry_soon_after_success_is_told(comfyui: ComfyUI) -> None:
    client_id = unique()
    with comfyui.listen(client_id) as listener:
        prompt_id = comfyui.submit({"1": show("x")}, client_id=client_id)
        listener.until_type("execution_success")
        entry = comfyui.finished(prompt_id)
    assert entry["status"]["status_str"] == "success"
    assert entry["status"]["completed"] is True
    assert list(history_messages(entry)) == [
        "execution_start",
        "execution_cached",
        "execution_success",
    ]


def test_node_that_raises(comfyui: ComfyUI) -> None:
    entry = comfyui.run(bars_and_save(mode="error"))
    assert (entry["status"]["status_str"], entry["status"]["completed"]) == ("error", False)
    error = history_messages(entry)["execution_error"]
    assert (error["node_id"], error["node_type"]) == ("1", "BarsRender")
    assert error["exception_type"] == "ValueError"
    assert error["exception_message"] == "bars: deliberate node failure\n"
    assert entry["outputs"] == {}


def test_out_of_memory_shows_in_the_exception_type(comfyui: ComfyUI) -> None:
    entry = comfyui.run(bars_and_save(mode="oom"))
    error = history_messages(entry)["execution_error"]
    assert error["exception_type"].endswith("OutOfMemoryError")
    assert entry["status"]["status_str"] == "error"


def test_interrupted_prompt_is_an_error_without_execution_error(comfyui: ComfyUI) -> None:
    prompt_id = comfyui.submit(bars_and_save(seconds=20, steps=400))
    comfyui.running(prompt_id)
    assert comfyui.post("/interrupt", json={"prompt_id": prompt_id}).status_code == 200
    entry = comfyui.finished(prompt_id)
    assert (entry["status"]["status_str"], entry["status"]["completed"]) == ("error", False)
    messages = history_messages(entry)
    assert "execution_error" not in messages
    assert messages["execution_interrupted"]["node_id"] == "1"


def test_interrupt_takes_effect_at_the_next_step_which_is_not_told(comfyui: ComfyUI) -> None:
    client_id = unique()
    with comfyui.listen(client_id) as listener:
        prompt_id = comfyui.submit(bars_and_save(seconds=3, steps=1), client_id=client_id)
        listener.until_type("executing")
        comfyui.post("/interrupt", json={"prompt_id": prompt_id})
        heard = listener.until_done(prompt_id)
    assert types(heard) == ["execution_interrupted", "status", "executing"]


@pytest.mark.parametrize("body", [b"", b'{"prompt_id": null}', b"no json"])
def test_interrupt_without_a_prompt_id_stops_whatever_runs(comfyui: ComfyUI, body: bytes) -> None:
    prompt_id = comfyui.submit(bars_and_save(seconds=20, steps=400))
    comfyui.running(prompt_id)
    assert comfyui.post("/interrupt", data=body).status_code == 200
    assert "execution_interrupted" in history_messages(comfyui.finished(prompt_id))


def test_interrupt_for_another_prompt_is_ignored(comfyui: ComfyUI) -> None:
    client_id = unique()
    with comfyui.listen(client_id) as listener:
        prompt_id = comfyui.submit(bars_and_save(seconds=20, steps=400), client_id=client_id)
        listener.until_type("executing")
        assert comfyui.post("/interrupt", json={"prompt_id": unique()}).status_code == 200
        listener.take()
        # The step that had begun, and one more, at which it would have taken effect.
        for _ in range(2):
            listener.until_type("progress")
        comfyui.post("/interrupt", json={"prompt_id": prompt_id})
        listener.until_done(prompt_id)


def test_interrupt_while_idle_does_not_hit_the_next_prompt(comfyui: ComfyUI) -> None:
    assert comfyui.post("/interrupt").status_code == 200
    assert comfyui.run(bars_and_save())["status"]["completed"]


@pytest.mark.parametrize(
    ("workflow", "order"),
    [
        pytest.param(
            {"1": colour(), "2": invert("1"), "3": invert("2"), "4": save("3"), "5": save("1")},
            ["1", "5", "2", "3", "4"],
            id="an output comes before the node that was queued first",
        ),
        pytest.param(
            {
                "1": colour(),
                "2": invert("1"),
                "3": invert("2"),
                "4": save("3"),
                "5": colour(),
                "6": save("5"),
                "7": invert("5"),
                "8": save("7"),
            },
            ["5", "6", "7", "8", "1", "2", "3", "4"],
            id="what an output waits for comes before what is further from one",
        ),
        pytest.param(
            {
                "1": colour(),
                "2": invert("1"),
                "3": invert("2"),
                "4": save("3"),
                "5": colour(),
                "6": invert("5"),
                "7": save("6"),
            },
            ["5", "6", "7", "1", "2", "3", "4"],
            id="two nodes from an output comes before three",
        ),
    ],
)
def test_order_of_nodes(comfyui: ComfyUI, workflow: dict[str, Any], order: list[str]) -> None:
    client_id = unique()
    with comfyui.listen(client_id) as listener:
        prompt_id = comfyui.submit(workflow, client_id=client_id)
        heard = listener.until_done(prompt_id)
    nodes = [m["data"]["node"] for m in heard if m["type"] == "executing"]
    assert nodes == [*order, None]


def test_failed_prompt_keeps_what_it_had_made(comfyui: ComfyUI) -> None:
    # Node 2 is an output and ready first, so that it has run when node 4 fails.
    workflow = {"1": colour(), "2": save("1"), "3": invert("1"), "4": save("3", "/not/allowed")}
    entry = comfyui.run(workflow)
    assert history_messages(entry)["execution_error"]["node_id"] == "4"
    assert history_messages(entry)["execution_error"]["executed"] != []
    assert list(entry["outputs"]) == list(entry["meta"]) == ["2"]


def test_current_inputs_of_a_failed_node_are_lists(comfyui: ComfyUI) -> None:
    workflow = {"1": bars(mode="error", seed=5), "2": save("1")}
    error = history_messages(comfyui.run(workflow))["execution_error"]
    assert error["current_inputs"]["seed"] == [5]
    assert sorted(error["current_outputs"]) == ["1", "2"]
