"""How a worker leaves, on a clock that does not wait, without a process that ends."""

import signal
import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from celery.worker import state

from workers.execution.control import ServerLost, WorkerLeaving
from workers.lifecycle import leaving as module
from workers.lifecycle.leaving import Leaving

LONG = 20.0


class Keeper:
    """Says that it leaves when Redis lets it, and gives back what it has."""

    def __init__(self) -> None:
        self.redis_answers = threading.Event()
        self.announced = threading.Event()
        self.done: list[object] = []

    def announce_leaving(self) -> None:
        assert self.redis_answers.wait(LONG)
        self.announced.set()

    def leave(self, reason: Exception) -> None:
        self.done.append(type(reason))


@pytest.fixture
def keeper(monkeypatch: pytest.MonkeyPatch) -> Iterator[Keeper]:
    one = Keeper()
    monkeypatch.setattr(module, "time", SimpleNamespace(sleep=one.done.append))
    monkeypatch.setattr(module, "os", SimpleNamespace(_exit=one.done.append))
    monkeypatch.setattr(module, "logging", SimpleNamespace(shutdown=lambda: None))
    yield one
    state.should_stop = None


def join(name: str) -> None:
    """Wait until the thread with this name has ended."""
    for thread in threading.enumerate():
        if thread.name == name:
            thread.join(LONG)


@pytest.mark.timeout(LONG / 2)
def test_a_redis_that_does_not_answer_holds_up_nobody_who_leaves(keeper: Keeper) -> None:
    leaving = Leaving(keeper, 15.0)  # type: ignore[arg-type]
    leaving._give_back_after(15.0, 4.0)
    assert keeper.done == [15.0, WorkerLeaving, 4.0, 0]
    assert not keeper.announced.is_set()
    keeper.redis_answers.set()
    assert keeper.announced.wait(LONG)


def test_who_begins_anew_gives_back_what_it_has_first(
    keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper.redis_answers.set()
    monkeypatch.setattr(module, "begin_anew", lambda: keeper.done.append("anew"))
    leaving = Leaving(keeper, 15.0)  # type: ignore[arg-type]
    leaving.begin_anew(ServerLost("x"), grace_seconds=0.0)
    # The second reason is none.
    leaving.begin_anew(WorkerLeaving("x"))
    join("anew")
    assert (leaving.begun, leaving.anew, state.should_stop) == (True, True, 0)
    # What comes after it never happens.
    assert keeper.done == [0.0, ServerLost, 4.0, "anew", 0]
    # Others may count on the one who has the server now.
    assert not keeper.announced.is_set()


def test_who_is_asked_to_end_does_not_begin_anew(keeper: Keeper) -> None:
    keeper.redis_answers.set()
    leaving = Leaving(keeper, 15.0)  # type: ignore[arg-type]
    leaving.begun = leaving.anew = True
    leaving._on_signal(signal.SIGTERM, None)
    join("SIGTERM")
    assert (leaving.begun, leaving.anew) == (True, False)
    # It is gone, as after a second one.
    assert keeper.done == [0.0, WorkerLeaving, module._HURRY_SECONDS, 0]


def test_who_leaves_says_so_before_the_grace(keeper: Keeper) -> None:
    keeper.redis_answers.set()
    leaving = Leaving(keeper, 15.0)  # type: ignore[arg-type]
    leaving._leave_at_once("SIGQUIT")
    assert keeper.announced.wait(LONG)
    assert keeper.done == [0.0, WorkerLeaving, module._HURRY_SECONDS, 0]
