"""Waiting prompts and remembered ones: `/queue`, `/history` and `GET /prompt`."""

from collections.abc import Iterator
from typing import Any

import pytest

from .comfyui import ComfyUI, bars_and_save, remaining, show, unique

pytestmark = pytest.mark.contract


@pytest.fixture
def busy(comfyui: ComfyUI) -> Iterator[str]:
    """A prompt that runs while the test does."""
    prompt_id = comfyui.submit(bars_and_save(seconds=10, steps=100))
    comfyui.running(prompt_id)
    yield prompt_id
    comfyui.post("/queue", json={"clear": True})
    comfyui.post("/interrupt", json={"prompt_id": prompt_id})
    comfyui.finished(prompt_id)


def pending(comfyui: ComfyUI) -> list[str]:
    return [item[1] for item in comfyui.queue()["queue_pending"]]


def test_pending_prompts_wait_in_the_order_of_their_numbers(comfyui: ComfyUI, busy: str) -> None:
    first, second = (comfyui.submit({"1": show("x")}) for _ in range(2))
    front = comfyui.submit({"1": show("x")}, front=True)
    waiting = sorted(comfyui.queue()["queue_pending"], key=lambda item: item[0])
    assert [item[1] for item in waiting] == [front, first, second], "listed in any order"
    assert waiting[0][0] < 0
    assert comfyui.get("/prompt").json() == {"exec_info": {"queue_remaining": 4}}
    assert busy


def test_pending_prompt_is_deleted_and_leaves_no_history(comfyui: ComfyUI, busy: str) -> None:
    gone, kept = (comfyui.submit({"1": show("x")}) for _ in range(2))
    response = comfyui.post("/queue", json={"delete": [gone, unique()]})
    assert (response.status_code, response.content) == (200, b"")
    assert pending(comfyui) == [kept]
    comfyui.post("/interrupt", json={"prompt_id": busy})
    comfyui.finished(kept)
    assert comfyui.get(f"/history/{gone}").json() == {}


def test_deleting_does_not_touch_the_running_prompt(comfyui: ComfyUI, busy: str) -> None:
    comfyui.post("/queue", json={"delete": [busy]})
    assert [item[1] for item in comfyui.queue()["queue_running"]] == [busy]


def test_deleting_leaves_the_others_in_their_order(comfyui: ComfyUI, busy: str) -> None:
    comfyui.post("/history", json={"clear": True})
    ids = {n: comfyui.submit({"1": show(n)}, number=10**6 + n) for n in (1, 5, 2, 6, 7, 3)}
    comfyui.post("/queue", json={"delete": [ids[1]]})
    comfyui.post("/interrupt", json={"prompt_id": busy})
    comfyui.finished(ids[7])
    assert list(comfyui.get("/history").json()) == [busy, *(ids[n] for n in (2, 3, 5, 6, 7))]


def test_of_a_prompt_id_queued_twice_one_is_deleted(comfyui: ComfyUI, busy: str) -> None:
    prompt_id = unique()
    for _ in range(2):
        comfyui.submit({"1": show("x")}, prompt_id=prompt_id)
    comfyui.post("/queue", json={"delete": [prompt_id]})
    assert pending(comfyui) == [prompt_id]
    assert busy


def test_clearing_leaves_the_running_prompt(comfyui: ComfyUI, busy: str) -> None:
    comfyui.submit({"1": show("x")})
    comfyui.post("/queue", json={"clear": True})
    assert pending(comfyui) == []
    assert [item[1] for item in comfyui.queue()["queue_running"]] == [busy]


def test_deleting_the_last_pending_prompt_is_told_twice(comfyui: ComfyUI, busy: str) -> None:
    with comfyui.listen() as listener:
        first, second = (comfyui.submit({"1": show("x")}) for _ in range(2))
        comfyui.post("/queue", json={"delete": [first, second]})
        comfyui.post("/interrupt", json={"prompt_id": busy})
        heard = remaining(listener.until_idle())
    assert heard == [2, 3, 2, 1, 1, 0]


def test_pages_of_the_history(comfyui: ComfyUI) -> None:
    comfyui.post("/history", json={"clear": True})
    ids = [comfyui.submit({"1": show(text)}) for text in "abcd"]
    comfyui.finished(ids[-1])

    def page(**params: Any) -> list[str]:
        return list(comfyui.get("/history", **params).json())

    assert page() == ids
    assert page(max_items=2) == ids[2:], "without an offset, the latest"
    assert page(max_items=2, offset=1) == ids[1:3]
    assert page(max_items=3, offset=-3) == ids[1:]
    assert page(offset=3) == ids[3:]
    assert page(offset=99) == page(max_items=0) == []


def test_prompt_id_that_runs_again_keeps_its_place_in_the_history(comfyui: ComfyUI) -> None:
    comfyui.post("/history", json={"clear": True})
    again, other = unique(), unique()
    for text, prompt_id in (("a", again), ("b", other), ("c", again), ("d", unique())):
        last = comfyui.submit({"1": show(text)}, prompt_id=prompt_id)
    comfyui.finished(last)
    assert list(comfyui.get("/history").json()) == [again, other, last]
    assert comfyui.finished(again)["outputs"] == {"1": {"text": ["c"]}}


def test_finished_prompts_are_forgotten_on_request(comfyui: ComfyUI) -> None:
    ids = [comfyui.submit({"1": show(text)}) for text in "ab"]
    comfyui.finished(ids[-1])
    response = comfyui.post("/history", json={"delete": [ids[0], unique()]})
    assert (response.status_code, response.content) == (200, b"")
    assert comfyui.get(f"/history/{ids[0]}").json() == {}
    assert ids[1] in comfyui.get(f"/history/{ids[1]}").json()
    comfyui.post("/history", json={"clear": True})
    assert comfyui.get("/history").json() == {}


@pytest.mark.parametrize("path", ["/queue", "/history", "/free"])
def test_body_that_is_no_json_is_a_500(comfyui: ComfyUI, path: str) -> None:
    assert comfyui.post(path, data=b"no json").status_code == 500


@pytest.mark.parametrize("params", [{"max_items": "x"}, {"offset": "x"}])
def test_page_that_is_no_number_is_a_500(comfyui: ComfyUI, params: dict[str, Any]) -> None:
    assert comfyui.get("/history", **params).status_code == 500
