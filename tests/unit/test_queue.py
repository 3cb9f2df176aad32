"""Reading the queue, whatever it is that calls itself one."""

from typing import Any

import pytest

from workers.comfyui.model import QueuedPrompt
from workers.comfyui.queue import read_queue


def item(number: float, prompt_id: str) -> list[Any]:
    return [number, prompt_id, {"1": {}}, {"client_id": "me"}, ["1"]]


def test_what_waits_is_in_the_order_in_which_it_will_run() -> None:
    answer = {
        "queue_running": [item(1, "runs")],
        # As they lie in a heap; what was put to the front has a number below zero.
        "queue_pending": [item(-7, "urgent"), item(5, "later"), item(2.5, "soon")],
    }
    running, pending = read_queue(answer)
    assert running == [QueuedPrompt("runs", 1, {"1": {}}, "me")]
    assert [prompt.prompt_id for prompt in pending] == ["urgent", "soon", "later"]


@pytest.mark.parametrize(
    "rest", [[], [None], ["", ""], [[], []], [{}, {"client_id": 5}, []]], ids=str
)
def test_an_id_is_enough(rest: list[Any]) -> None:
    (prompt,), _ = read_queue({"queue_running": [["x", "p", *rest]], "queue_pending": []})
    assert prompt == QueuedPrompt("p", 0, {}, None)


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        ({}, "unknown form"),
        ({"queue_running": []}, "unknown form"),
        ({"queue_running": {}, "queue_pending": []}, "unknown form"),
        ({"queue_running": [["p"]], "queue_pending": []}, "without ids"),
        ({"queue_running": [[1, 2]], "queue_pending": []}, "without ids"),
        ({"queue_running": ["prompt"], "queue_pending": []}, "without ids"),
    ],
    ids=str,
)
def test_what_is_no_queue_is_none(answer: dict[str, Any], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        read_queue(answer)
