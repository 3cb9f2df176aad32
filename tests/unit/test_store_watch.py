"""The watch on the bucket: who is denied has no more rendered for it, and is told why."""

import threading
from collections.abc import Callable, Iterator

import pytest

from tasks.errors import StorageDeniedError, StorageUnavailableError
from workers.checks.finding import Judgement, fail, ok, warn
from workers.lifecycle import store_watch as module
from workers.lifecycle.store_watch import StoreWatch

LONG = 10.0
DENIED = StorageDeniedError("read-only")
AWAY = StorageUnavailableError("away")


class Scene:
    """A store that answers as told, and what became known of it."""

    def __init__(self) -> None:
        self.answers: list[Exception | None] = []
        self.looks = 0
        self.seen = ok("well")
        self._changed = threading.Condition()
        self.told: list[bool] = []
        self.watch = StoreWatch(self.look, lambda error: fail(str(error), "mend it"))
        self.watch.subscribe(self.hear)

    def look(self) -> Judgement:
        with self._changed:
            self.looks += 1
            self._changed.notify_all()
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is not None:
            raise answer
        return self.seen

    def hear(self, closed: bool) -> None:
        with self._changed:
            self.told.append(closed)
            self._changed.notify_all()

    def await_(self, condition: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, LONG)


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    monkeypatch.setattr(module, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(module, "_LONGEST_PAUSE", 0.01)
    one = Scene()
    yield one
    one.watch.stop()
    one.watch._thread.join(LONG)
    assert not one.watch._thread.is_alive()


def test_a_store_that_is_well_is_looked_at_once(scene: Scene) -> None:
    scene.answers = [None]
    scene.watch.start()
    assert scene.watch.wait_begun(LONG)
    assert (scene.looks, scene.watch.closed, scene.told) == (1, True, [])


def test_what_is_to_be_known_beside_is_said(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.answers, scene.seen = [None], warn("late by an hour", "NTP")
    scene.watch.start()
    assert scene.watch.wait_begun(LONG)
    assert [one.message for one in caplog.records] == ["late by an hour (fix: NTP)"]
    assert scene.watch.closed


def test_who_is_denied_takes_no_jobs_until_it_is_mended(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    scene.answers = [DENIED, DENIED, DENIED, None]
    scene.watch.start()
    scene.await_(lambda: scene.told == [False, True])
    assert scene.watch.closed
    assert [one.message for one in caplog.records] == [
        "read-only: no jobs are taken until it takes objects (fix: mend it)",
        "the store takes objects again",
    ]


def test_a_store_that_is_away_is_waited_for_with_what_is_rendered(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.answers = [AWAY]
    scene.watch.start()
    scene.await_(lambda: scene.looks >= 3)
    assert scene.watch.closed
    assert scene.told == []
    (record,) = caplog.records
    assert "jobs are rendered, and wait" in record.message


def test_one_that_is_denied_and_then_away_is_not_open_for_that(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.answers = [DENIED, AWAY, AWAY, None]
    scene.watch.start()
    scene.await_(lambda: scene.told == [False, True])
    assert all("no jobs are taken until" in one.message for one in caplog.records)


def test_whoever_is_denied_has_it_looked_at(scene: Scene) -> None:
    scene.answers = [None]
    scene.watch.start()
    assert scene.watch.wait_begun(LONG)
    scene.answers = [DENIED]
    scene.watch.suspect()
    scene.await_(lambda: scene.told == [False])
    assert not scene.watch.closed


def test_a_fault_of_ours_ends_no_watch(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.answers = [KeyError("x"), None]

    def raise_it(_: bool) -> None:
        raise KeyError

    scene.watch.subscribe(raise_it)
    scene.watch.start()
    scene.await_(lambda: scene.looks == 2)
    scene.answers = [DENIED, None]
    scene.watch.suspect()
    scene.await_(lambda: scene.told == [False, True])
    assert "cannot be looked at" in caplog.text


def test_a_watch_that_waits_can_be_stopped(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FIRST_PAUSE", 60.0)
    monkeypatch.setattr(module, "_STOP_SECONDS", LONG)
    scene.answers = [DENIED]
    scene.watch.start()
    assert scene.watch.wait_begun(LONG)
    scene.watch.stop()
    assert not scene.watch._thread.is_alive()
