"""How long an answer is waited for: as long as a paid render deserves, by a clock, or briefly."""

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.errors import (
    ComfyUIUnavailableError,
    InternalError,
    JobError,
    OutputMissingError,
    StorageDeniedError,
    StorageUnavailableError,
)
from workers.execution import patience as module
from workers.execution.control import Control, WorkerLeaving
from workers.execution.patience import patiently, soon
from workers.execution.waiting import OUTAGE_PATIENCE

STORE_PATIENCE = 900.0


class Clock(Control):
    """A control that does not sleep but lets the clock go on."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        self.check()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    one = Clock()
    told = SimpleNamespace(monotonic=lambda: one.now, time=lambda: one.now)
    monkeypatch.setattr(module, "time", told)
    return one


def attempt(action: Callable[[], Any], clock: Clock, patience: float = STORE_PATIENCE) -> Any:
    return patiently(action, what="x", control=clock, storage_patience=patience)


class Failing:
    """Fails so often, each time after some seconds; then succeeds."""

    def __init__(
        self, error: JobError, clock: Clock, times: float = float("inf"), seconds: float = 0.0
    ) -> None:
        self.error, self.clock, self.left, self.seconds = error, clock, times, seconds
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        self.clock.now += self.seconds
        if self.calls <= self.left:
            raise self.error
        return "done"


def test_what_succeeds_waits_for_nothing(clock: Clock) -> None:
    assert attempt(lambda: "done", clock) == "done"
    assert clock.slept == []


@pytest.mark.parametrize(
    "leaf", [StorageUnavailableError, StorageDeniedError, ComfyUIUnavailableError]
)
def test_a_passing_outage_is_waited_out(clock: Clock, leaf: type[JobError]) -> None:
    action = Failing(leaf("away"), clock, times=4)
    assert attempt(action, clock) == "done"
    assert action.calls == 5


@pytest.mark.parametrize(
    ("leaf", "patience"),
    [
        (StorageUnavailableError, STORE_PATIENCE),
        # Credentials are being renewed.
        (StorageDeniedError, STORE_PATIENCE),
        (ComfyUIUnavailableError, OUTAGE_PATIENCE),
    ],
)
def test_the_patience_is_used_up_and_not_a_second_more(
    clock: Clock, leaf: type[JobError], patience: float
) -> None:
    with pytest.raises(leaf, match="away"):
        attempt(Failing(leaf("away"), clock), clock)
    assert clock.now == pytest.approx(1000.0 + patience)


def test_without_patience_there_is_one_try(clock: Clock) -> None:
    action = Failing(StorageUnavailableError("away"), clock)
    with pytest.raises(StorageUnavailableError):
        attempt(action, clock, patience=0.0)
    assert (action.calls, clock.slept) == (1, [])


@pytest.mark.parametrize("leaf", [StorageUnavailableError, ComfyUIUnavailableError])
def test_a_large_file_that_breaks_late_has_all_the_patience(
    clock: Clock, leaf: type[JobError]
) -> None:
    action = Failing(leaf("cut"), clock, times=1, seconds=STORE_PATIENCE + 1)
    assert attempt(action, clock) == "done"


@pytest.mark.parametrize("leaf", [InternalError, OutputMissingError])
def test_what_does_not_pass_is_not_waited_for(clock: Clock, leaf: type[JobError]) -> None:
    action = Failing(leaf("no"), clock)
    with pytest.raises(leaf):
        attempt(action, clock)
    assert action.calls == 1


def test_pauses_grow_to_half_a_minute_and_are_spread(clock: Clock) -> None:
    with pytest.raises(StorageUnavailableError):
        attempt(Failing(StorageUnavailableError("away"), clock), clock)
    *pauses, _ = clock.slept
    longest = [min(30.0, 0.5 * 2**number) for number in range(len(pauses))]
    assert len(pauses) > 10
    for pause, most in zip(pauses, longest, strict=True):
        assert 0.75 * most <= pause <= most
    assert len({pause / most for pause, most in zip(pauses, longest, strict=True)}) > 1


def test_a_reason_to_end_ends_the_patience(clock: Clock) -> None:
    clock.stop(WorkerLeaving("x"))
    action = Failing(StorageUnavailableError("away"), clock)
    with pytest.raises(WorkerLeaving):
        attempt(action, clock)
    assert action.calls == 1


def test_what_succeeds_is_not_lost_to_a_reason_to_end(clock: Clock) -> None:
    clock.stop(WorkerLeaving("x"))
    assert attempt(lambda: "done", clock) == "done"


def test_what_can_be_done_without_is_waited_for_briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SOON_SECONDS", 0.01)
    over = threading.Event()
    assert soon(lambda: over.wait(20.0)) is None
    over.set()
