"""What a worker tells the fleet is told aside, soon or never."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tasks.errors import BrokerUnavailableError
from workers.ledger.fleet import WorkerStatus
from workers.lifecycle import telling as module
from workers.lifecycle.telling import Telling
from workers.observing import AttemptBegan
from workers.observing.stories import StoryLines

PATIENCE = 10.0


class Ledger:
    """On paper: both registry and stories."""

    def __init__(self) -> None:
        self.stories = self.fleet = self
        self.told: list[str] = []
        self.lines: list[Any] = []
        self.forgotten: list[str] = []
        self.closed = False
        self.errors: list[Exception] = []
        self.heard = threading.Semaphore(0)

    def tell(self, what: Any) -> None:
        try:
            if self.errors:
                raise self.errors.pop(0)
            if isinstance(what, list):
                self.lines += what
            else:
                self.told.append(what.id)
        finally:
            self.heard.release()

    def forget(self, worker_id: str) -> None:
        self.forgotten.append(worker_id)

    def close(self) -> None:
        self.closed = True


class Presence:
    id = "w-1"

    def status(self) -> WorkerStatus:
        return WorkerStatus(
            id=self.id, worker="w", instance="i", state="ready", slots=1, version="1", started_at=0
        )


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def lines() -> StoryLines:
    return StoryLines("w")


@pytest.fixture
def telling(
    ledger: Ledger, lines: StoryLines, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Telling]:
    monkeypatch.setattr(module, "_STORY_SECONDS", 0.0)
    # Of itself it tells the status no second time.
    monkeypatch.setattr(module, "TELL_SECONDS", 3600.0)
    monkeypatch.setattr(module, "_JOIN_SECONDS", PATIENCE)
    one = Telling(ledger, Presence(), lines)  # type: ignore[arg-type]
    yield one
    one.stop()


def began(number: int) -> AttemptBegan:
    return AttemptBegan("j", number, prompt_id="p", instance="i", start="submit")


def test_a_worker_comes_tells_and_goes(telling: Telling, ledger: Ledger, lines: StoryLines) -> None:
    telling.start()
    assert ledger.heard.acquire(timeout=PATIENCE)
    assert ledger.told == ["w-1"]
    lines(began(1))
    assert ledger.heard.acquire(timeout=PATIENCE)
    assert [line.told["number"] for line in ledger.lines] == [1]
    telling.stop()
    assert (ledger.forgotten, ledger.closed) == (["w-1"], True)


def test_what_is_left_is_told_at_the_end(
    telling: Telling, ledger: Ledger, lines: StoryLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_STORY_SECONDS", 3600.0)
    monkeypatch.setattr(module, "_AT_ONCE", 2)
    telling.start()
    assert ledger.heard.acquire(timeout=PATIENCE)
    for number in range(5):
        lines(began(number))
    telling.stop()
    assert [line.told["number"] for line in ledger.lines] == [0, 1, 2, 3, 4]


def test_what_cannot_be_told_is_lost_and_said_once(
    telling: Telling, ledger: Ledger, lines: StoryLines, caplog: pytest.LogCaptureFixture
) -> None:
    ledger.errors = [BrokerUnavailableError("away"), RuntimeError("worse")]
    telling.start()
    for number in (1, 2):
        assert ledger.heard.acquire(timeout=PATIENCE)
        lines(began(number))
    assert ledger.heard.acquire(timeout=PATIENCE)
    telling.stop()
    assert [line.told["number"] for line in ledger.lines] == [2]
    assert [one.message for one in caplog.records] == [
        "the fleet cannot be told what happens here: away"
    ]


def test_one_that_was_never_started_can_be_stopped(telling: Telling, ledger: Ledger) -> None:
    telling.stop()
    assert (ledger.told, ledger.closed) == ([], True)
