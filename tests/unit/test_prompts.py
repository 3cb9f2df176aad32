"""What a new prompt waits for, and how long it is waited for."""

import time
from typing import Any

import pytest

from tasks.errors import JobTimeoutError
from tests.unit.one_attempt import PROMPT, Scene, key
from workers.execution import prompts as module
from workers.execution.control import LeaseLost, ServerHung, ServerLost, WorkerLeaving
from workers.execution.job import AttemptFailed, Start
from workers.execution.waiting import Patience
from workers.ledger.ledger import LOST


def test_a_job_whose_lease_has_ended_while_its_inputs_were_placed_is_confirmed_first(
    scene: Scene,
) -> None:
    scene.on_place = lambda: setattr(scene.lease, "valid_until", float("-inf"))
    with scene.holding() as lease:
        assert [output.key for output in scene.attempt().outputs] == [key("a")]
        assert lease.valid_until > time.monotonic()


def test_a_job_that_others_have_by_then_is_not_queued(scene: Scene) -> None:
    scene.on_place = lambda: setattr(scene.lease, "valid_until", float("-inf"))
    scene.ours = LOST
    with scene.holding():
        with pytest.raises(LeaseLost):
            scene.attempt()
    assert scene.server.submitted == []


def test_a_job_that_has_a_reason_to_end_by_then_is_not_queued(scene: Scene) -> None:
    scene.on_place = lambda: scene.lease.control.stop(WorkerLeaving("x"))
    with scene.holding():
        with pytest.raises(WorkerLeaving):
            scene.attempt()
    assert scene.server.submitted == []


def test_nothing_is_queued_on_a_server_that_another_worker_drives(scene: Scene) -> None:
    scene.server_lost = True
    with scene.holding():
        with pytest.raises(ServerLost):
            scene.attempt()
    assert scene.server.submitted == []
    # What runs there is the other one's to stop.
    assert scene.server.cancelled == []


# How long it is waited for


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> list[Patience]:
    """What is had with a prompt, which never ends in time."""
    had: list[Patience] = []

    def await_entry(*_: Any, patience: Patience, **__: Any) -> None:
        had.append(patience)
        raise JobTimeoutError("x")

    monkeypatch.setattr(module, "await_entry", await_entry)
    return had


def test_the_time_of_a_new_prompt_counts_from_its_execution(
    scene: Scene, patience: list[Patience]
) -> None:
    # Neither placing inputs nor those before it in the queue take any of it.
    with scene.holding(), pytest.raises(AttemptFailed):
        scene.attempt(timeout=7.0)
    assert patience == [Patience(7.0, None, 60.0)]


@pytest.mark.parametrize("start", [Start.ADOPT, Start.COLLECT])
def test_that_of_one_from_before_counts_from_when_it_was_submitted(
    scene: Scene, patience: list[Patience], start: Start
) -> None:
    before = time.monotonic()
    with scene.holding(), pytest.raises(AttemptFailed):
        scene.attempt(start, timeout=7.0, age=5.0)
    (had,) = patience
    assert had.seconds == 7.0
    assert had.since is not None
    assert before - 5.0 <= had.since <= time.monotonic() - 5.0


def test_a_prompt_that_waits_behind_one_that_hangs_is_handed_on(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def await_entry(*_: Any, **__: Any) -> None:
        raise ServerHung("x")

    monkeypatch.setattr(module, "await_entry", await_entry)
    with scene.holding() as lease:
        # No failure of its own.
        with pytest.raises(ServerHung):
            scene.attempt()
        assert lease.prompt_stopped
    assert scene.server.cancelled == [PROMPT]
