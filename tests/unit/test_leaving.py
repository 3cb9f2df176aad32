"""How a worker leaves, on a clock that does not wait, without a process that ends."""

import threading
from types import SimpleNamespace

import pytest

from workers.execution.control import WorkerLeaving
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
def keeper(monkeypatch: pytest.MonkeyPatch) -> Keeper:
    one = Keeper()
    monkeypatch.setattr(module, "time", SimpleNamespace(sleep=one.done.append))
    monkeypatch.setattr(module, "os", SimpleNamespace(_exit=one.done.append))
    monkeypatch.setattr(module, "logging", SimpleNamespace(shutdown=lambda: None))
    return one


@pytest.mark.timeout(LONG / 2)
def test_a_redis_that_does_not_answer_holds_up_nobody_who_leaves(keeper: Keeper) -> None:
    leaving = Leaving(keeper, 15.0)  # type: ignore[arg-type]
    leaving._give_back_after(15.0, 4.0)
    assert keeper.done == [15.0, WorkerLeaving, 4.0, 0]
    assert not keeper.announced.is_set()
    keeper.redis_answers.set()
    assert keeper.announced.wait(LONG)


def test_who_leaves_says_so_before_the_grace(keeper: Keeper) -> None:
    keeper.redis_answers.set()
    leaving = Leaving(keeper, 15.0)  # type: ignore[arg-type]
    leaving._leave_at_once("SIGQUIT")
    assert keeper.announced.wait(LONG)
    assert keeper.done == [0.0, WorkerLeaving, module._HURRY_SECONDS, 0]
