"""Progress on its way to the result backend, on a clock that only the test moves."""

import logging
import queue
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.result import Progress
from workers.broker import progress as module
from workers.broker.progress import INTERVAL, ProgressWriter

PATIENCE = 10.0


def at(value: float) -> Progress:
    return Progress(stage="executing", value=value, instance="http://gpu", node_id="3", step=1)


class Backend:
    """Takes what is written, one after the other; each write is an event."""

    def __init__(self) -> None:
        self.writes: queue.Queue[tuple[str, float]] = queue.Queue()
        self.metas: list[dict[str, Any]] = []
        self.errors: list[Exception] = []
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def write(self, job_id: str, meta: dict[str, Any]) -> None:
        self.metas.append(meta)
        self.writes.put((job_id, meta["value"]))
        assert self.may_go_on.wait(PATIENCE)
        if self.errors:
            raise self.errors.pop(0)

    def next(self) -> tuple[str, float]:
        return self.writes.get(timeout=PATIENCE)


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    one = Clock()
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=one.monotonic))
    return one


@pytest.fixture
def backend() -> Backend:
    return Backend()


@pytest.fixture
def writer(backend: Backend, clock: Clock) -> Iterator[ProgressWriter]:  # noqa: ARG001  # its clock
    one = ProgressWriter(backend.write)
    one.start()
    yield one
    backend.may_go_on.set()
    one.stop()


class Marker:
    """Jobs that say one thing each: what was due before is written before them."""

    def __init__(self, writer: ProgressWriter, backend: Backend) -> None:
        self.writer, self.backend = writer, backend
        self.count = 0

    def written_before(self) -> list[tuple[str, float]]:
        """What else has been written since the test looked last."""
        self.count += 1
        self.writer.tell(f"marker {self.count}", at(0.0))
        found = []
        while (write := self.backend.next())[0] != f"marker {self.count}":
            found.append(write)
        return found


@pytest.fixture
def marker(writer: ProgressWriter, backend: Backend) -> Marker:
    return Marker(writer, backend)


def test_the_first_is_written_at_once_and_as_it_is(
    writer: ProgressWriter, backend: Backend
) -> None:
    writer.tell("a", at(0.1))
    assert backend.next() == ("a", 0.1)
    assert backend.metas == [at(0.1).model_dump(mode="json")]


def test_of_what_comes_in_between_the_last_is_written(
    writer: ProgressWriter, backend: Backend, marker: Marker, clock: Clock
) -> None:
    writer.tell("a", at(0.1))
    assert backend.next() == ("a", 0.1)
    writer.tell("a", at(0.2))
    writer.tell("a", at(0.3))
    clock.now += INTERVAL
    assert marker.written_before() == [("a", 0.3)]
    clock.now += INTERVAL
    assert marker.written_before() == []


def test_each_job_is_written_of_once_an_interval_at_most(
    writer: ProgressWriter, backend: Backend, marker: Marker, clock: Clock
) -> None:
    writer.tell("a", at(0.1))
    assert backend.next() == ("a", 0.1)
    writer.tell("a", at(0.2))
    assert marker.written_before() == []
    clock.now += 0.99 * INTERVAL
    # Others have their own.
    writer.tell("b", at(0.7))
    assert marker.written_before() == [("b", 0.7)]
    clock.now += 0.01 * INTERVAL
    assert marker.written_before() == [("a", 0.2)]
    writer.tell("a", at(0.3))
    writer.tell("b", at(0.8))
    assert marker.written_before() == []
    clock.now += INTERVAL
    assert sorted(marker.written_before()) == [("a", 0.3), ("b", 0.8)]


def test_who_is_not_told_of_again_is_written_when_it_is_time(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With nothing to wake it but the time.
    monkeypatch.setattr(module, "INTERVAL", 0.01)
    writer = ProgressWriter(backend.write)
    writer.start()
    writer.tell("a", at(0.1))
    writer.tell("a", at(0.2))
    while backend.next() != ("a", 0.2):
        pass
    writer.stop()


def test_what_is_forgotten_is_not_written(
    writer: ProgressWriter, backend: Backend, marker: Marker, clock: Clock
) -> None:
    writer.tell("a", at(0.1))
    assert backend.next() == ("a", 0.1)
    writer.tell("a", at(0.2))
    writer.tell("b", at(0.5))
    writer.forget("a")
    clock.now += INTERVAL
    assert marker.written_before() == [("b", 0.5)]
    # Nor is it a fault to forget what is not known.
    writer.forget("a")
    writer.forget("c")


def test_a_job_that_comes_again_is_written_of_at_once(
    writer: ProgressWriter, backend: Backend
) -> None:
    for _ in range(2):
        writer.tell("a", at(0.1))
        assert backend.next() == ("a", 0.1)
        writer.forget("a")


def test_what_has_not_changed_is_not_written_again(
    writer: ProgressWriter, backend: Backend, marker: Marker, clock: Clock
) -> None:
    writer.tell("a", at(0.1))
    assert backend.next() == ("a", 0.1)
    for value, written in ((0.1, []), (0.2, [("a", 0.2)]), (0.1, [("a", 0.1)])):
        writer.tell("a", at(value))
        clock.now += INTERVAL
        assert marker.written_before() == written
    # Nor what is again as it was before it could be written.
    writer.tell("a", at(0.2))
    writer.tell("a", at(0.1))
    clock.now += INTERVAL
    assert marker.written_before() == []


def test_what_could_not_be_written_is_written_though_it_has_not_changed(
    writer: ProgressWriter, backend: Backend, marker: Marker, clock: Clock
) -> None:
    backend.errors = [ConnectionError("away")]
    writer.tell("a", at(0.1))
    assert backend.next() == ("a", 0.1)
    # That is over when the next one has begun.
    assert marker.written_before() == []
    writer.tell("a", at(0.1))
    clock.now += INTERVAL
    assert marker.written_before() == [("a", 0.1)]


def test_who_forgets_a_job_waits_until_no_write_of_it_is_under_way(
    writer: ProgressWriter, backend: Backend
) -> None:
    backend.may_go_on.clear()
    writer.tell("a", at(0.1))
    assert backend.next() == ("a", 0.1)
    # Those of others do not matter.
    writer.forget("b")
    forgetting = threading.Thread(target=writer.forget, args=("a",))
    forgetting.start()
    forgetting.join(0.05)
    assert forgetting.is_alive()
    backend.may_go_on.set()
    forgetting.join(PATIENCE)
    assert not forgetting.is_alive()


def test_nothing_is_kept_of_jobs_that_are_over(
    writer: ProgressWriter, backend: Backend, clock: Clock
) -> None:
    for number in range(5):
        writer.tell(f"{number}", at(0.1))
        assert backend.next() == (f"{number}", 0.1)
        writer.tell(f"{number}", at(0.2))
        writer.forget(f"{number}")
        clock.now += INTERVAL
    assert (writer._told, writer._next, writer._written) == ({}, {}, {})


def test_a_backend_that_hangs_holds_up_no_job(
    writer: ProgressWriter, backend: Backend, marker: Marker, clock: Clock
) -> None:
    backend.may_go_on.clear()
    writer.tell("a", at(0.1))
    assert backend.next() == ("a", 0.1)
    for value in (0.2, 0.3, 0.4):
        writer.tell("a", at(value))
        writer.tell("b", at(value))
    writer.tell("c", at(0.9))
    writer.forget("c")
    clock.now += INTERVAL
    assert backend.writes.empty()
    backend.may_go_on.set()
    assert sorted(marker.written_before()) == [("a", 0.4), ("b", 0.4)]


def test_a_write_that_fails_harms_nothing_and_is_told_of_once(
    writer: ProgressWriter, backend: Backend, marker: Marker, caplog: pytest.LogCaptureFixture
) -> None:
    def warned() -> list[str]:
        # The last write is over when the next one has begun.
        marker.written_before()
        records = [record for record in caplog.records if record.name == module.__name__]
        assert all(record.levelno == logging.WARNING for record in records)
        return [record.message for record in records]

    backend.errors = [ConnectionError("away"), KeyError("a fault"), ConnectionError("away")]
    for job_id in "abc":
        writer.tell(job_id, at(0.1))
    assert warned() == ["progress cannot be written: away"]
    writer.tell("d", at(0.1))
    assert len(warned()) == 1
    # It was there in between.
    backend.errors = [ConnectionError("away again")]
    writer.tell("e", at(0.1))
    assert warned()[1:] == ["progress cannot be written: away again"]


def test_the_end_ends_the_thread_and_what_is_not_yet_written_is_not(
    writer: ProgressWriter, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_JOIN_SECONDS", PATIENCE)
    writer.tell("a", at(0.1))
    assert backend.next() == ("a", 0.1)
    writer.tell("a", at(0.2))
    writer.stop()
    assert not writer._thread.is_alive()
    assert backend.writes.empty()
    # A job that has not heard of it goes on.
    writer.tell("a", at(0.3))
    writer.forget("a")
    writer.stop()


def test_a_worker_may_end_before_it_began(backend: Backend) -> None:
    ProgressWriter(backend.write).stop()


def test_a_backend_that_hangs_does_not_hold_up_the_end(
    writer: ProgressWriter, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_JOIN_SECONDS", 0.01)
    backend.may_go_on.clear()
    writer.tell("a", at(0.1))
    assert backend.next() == ("a", 0.1)
    writer.tell("b", at(0.1))
    writer.stop()
    backend.may_go_on.set()
    writer._thread.join(PATIENCE)
    assert not writer._thread.is_alive()
    assert backend.writes.empty()
