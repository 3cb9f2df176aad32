"""What a worker tells of itself, and of whom the fleet shows."""

import time

import pytest

from tasks.errors import JobCancelledError, PromptLostError
from workers.ledger.fleet import GONE_SECONDS, Heard, WorkerStatus, present
from workers.lifecycle.presence import Presence, state_of
from workers.observing import AttemptEnded, JobEnded


class Keeper:
    def __init__(self) -> None:
        self.held: list[tuple[str, str, float]] = []

    def stages(self) -> list[tuple[str, str, float]]:
        return self.held


class Circuit:
    closed = True
    reason = ""


@pytest.fixture
def keeper() -> Keeper:
    return Keeper()


@pytest.fixture
def circuit() -> Circuit:
    return Circuit()


@pytest.fixture
def presence(keeper: Keeper, circuit: Circuit) -> Presence:
    return Presence(
        keeper,
        (Circuit(), circuit),
        id="w-1",
        worker="w",
        instance="http://a",
        slots=4,
        is_leaving=lambda: False,
        comfyui_version=lambda: "0.8.0",
    )


def test_a_worker_tells_what_it_has(presence: Presence, keeper: Keeper, circuit: Circuit) -> None:
    status = presence.status()
    assert (status.state, status.jobs, status.last_error) == ("ready", (), None)
    assert (status.id, status.worker, status.instance) == ("w-1", "w", "http://a")
    assert (status.slots, status.comfyui_version) == (4, "0.8.0")
    keeper.held = [("j", "executing", time.monotonic() - 5000.0)]
    status = presence.status()
    assert status.state == "busy"
    (job,) = status.jobs
    assert (job.job_id, job.stage) == ("j", "executing")
    assert job.since == pytest.approx(time.time() - 5000.0, abs=100.0)
    circuit.closed, circuit.reason = False, "it does not answer"
    status = presence.status()
    assert (status.state, status.reason) == ("paused", "it does not answer")


def test_its_last_error_is_that_of_an_attempt_or_a_job(presence: Presence) -> None:
    presence(AttemptEnded("j", 1, PromptLostError("gone"), again_in=1.0))
    # What was asked for is no error, and what went well neither.
    presence(JobEnded("k", "cancelled", JobCancelledError("revoked")))
    presence(JobEnded("l", "succeeded"))
    status = presence.status()
    assert status.last_error == "PromptLostError: gone"
    assert status.last_error_at == pytest.approx(time.time(), abs=5.0)


@pytest.mark.parametrize(
    ("leaving", "closed", "busy", "state"),
    [
        (False, True, False, "ready"),
        (False, True, True, "busy"),
        (False, False, True, "paused"),
        (True, False, True, "leaving"),
    ],
)
def test_of_several_states_one_is_told(leaving: bool, closed: bool, busy: bool, state: str) -> None:
    assert state_of(leaving=leaving, closed=closed, busy=busy) == state


def heard(id_: str, worker: str, seconds: float) -> Heard:
    status = WorkerStatus(
        id=id_, worker=worker, instance="i", state="ready", slots=1, version="1", started_at=0.0
    )
    return Heard(status, seconds)


def test_who_is_silent_is_gone() -> None:
    assert heard("a", "a", GONE_SECONDS - 1).state == "ready"
    assert heard("a", "a", GONE_SECONDS + 1).state == "gone"


def test_of_one_name_nobody_is_gone_who_has_a_successor() -> None:
    old, older = heard("b-1", "b", 50.0), heard("b-0", "b", 90.0)
    new, other, lost = heard("b-2", "b", 1.0), heard("a-1", "a", 1.0), heard("c-1", "c", 99.0)
    assert present([old, new, lost, other]) == [other, new, lost]
    # Of several that are gone the last one counts.
    assert present([older, old]) == [old]
