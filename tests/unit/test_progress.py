from typing import Any

import pytest

from tests.recordings import VERSIONS, history_entry, websocket_messages
from workers.comfyui.progress import PromptProgress, fold


def replay(messages: list[tuple[str, dict[str, Any]]]) -> list[PromptProgress]:
    states = [PromptProgress()]
    for second, (kind, data) in enumerate(messages):
        states.append(fold(states[-1], kind, data, float(second)))
    return states


@pytest.mark.parametrize("version", VERSIONS)
def test_a_recorded_run_goes_from_nothing_to_all(version: str) -> None:
    workflow, _ = history_entry(version, "success")
    states = replay(websocket_messages(version, "success"))
    shares = [state.share(workflow) for state in states]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    assert states[-1].finished
    assert {(s.node_id, s.step, s.steps) for s in states} >= {
        ("1", None, None),
        ("1", 1, 3),
        ("1", 3, 3),
        ("2", None, None),
    }
    assert set(states[-1].node_seconds) == {"1", "2"}


@pytest.mark.parametrize("version", VERSIONS)
def test_cached_nodes_are_done(version: str) -> None:
    workflow, _ = history_entry(version, "same workflow again")
    states = replay(websocket_messages(version, "same workflow again"))
    assert states[-1].share(workflow) == 1.0
    assert states[-1].node_seconds == {}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("scenario", ["a node raises", "out of memory", "clear the queue"])
def test_every_end_is_an_end(version: str, scenario: str) -> None:
    ends = [s.finished for s in replay(websocket_messages(version, scenario))]
    assert ends[-1]
    assert not ends[0]


def test_a_node_that_runs_twice_adds_up() -> None:
    progress = PromptProgress()
    for now, node in enumerate(["1", "2", "1", None]):
        progress = fold(progress, "executing", {"node": node}, 10.0 * now)
    assert progress.node_seconds == {"1": 20.0, "2": 10.0}
    assert progress.node_began == {"1": 0.0, "2": 10.0}


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("progress", {}),
        ("progress", {"value": "1", "max": None}),
        ("progress", {"value": 5, "max": 0}),
        ("progress", {"value": -5, "max": 2}),
        ("progress", {"value": float("nan"), "max": float("inf")}),
        ("executing", {}),
        ("executing", {"node": 7}),
        ("execution_cached", {"nodes": None}),
        ("made_up", {"x": 1}),
    ],
)
def test_messages_of_another_form_do_no_harm(kind: str, data: dict[str, Any]) -> None:
    after = fold(PromptProgress(), kind, data, 1.0)
    assert after.share({"1": {}}) == 0.0
    assert not after.finished
