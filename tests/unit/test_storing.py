"""What becomes of the files of an attempt that came to nothing."""

import threading

import pytest

from tasks.errors import (
    JobCancelledError,
    JobError,
    NodeFailedError,
    OutputMissingError,
    StorageDeniedError,
    StorageUnavailableError,
)
from tests.unit.one_attempt import FAILURE, LONG, PROMPT, SUCCESS, Scene, images, key
from workers.execution import removal, storing
from workers.execution.control import HandedOn, LeaseLost, WorkerLeaving
from workers.execution.job import AttemptFailed


def test_what_a_failed_attempt_has_stored_early_is_removed(scene: Scene) -> None:
    scene.server.on_submit = lambda: scene.announce("9", "a", "b")
    scene.server.entry = FAILURE
    with scene.holding():
        with pytest.raises(AttemptFailed) as caught:
            scene.attempt()
    assert type(caught.value.error) is NodeFailedError
    assert scene.store.contents == {}


@pytest.mark.parametrize(
    "error", [StorageUnavailableError("away"), StorageDeniedError("no")], ids=lambda e: repr(e)[:16]
)
def test_what_is_stored_of_a_prompt_that_is_collected_later_stays(
    scene: Scene, error: JobError
) -> None:
    scene.server.on_submit = lambda: scene.announce("9", "a")
    scene.server.entry = {**SUCCESS, "outputs": {"9": images("a", "b")}}
    scene.server.steps = [lambda: (scene.store.errors.append(error), scene.server.end())]
    with scene.holding():
        with pytest.raises(AttemptFailed) as caught:
            scene.attempt()
    assert caught.value.error is error
    assert scene.store.contents.keys() == {key("a")}


def test_nothing_is_removed_of_a_job_that_others_may_have(scene: Scene) -> None:
    def end_too_late() -> None:
        scene.server.end()
        scene.lease.valid_until = float("-inf")

    scene.server.on_submit = lambda: scene.announce("9", "a")
    scene.server.entry = FAILURE
    scene.server.steps = [end_too_late]
    with scene.holding():
        with pytest.raises(AttemptFailed):
            scene.attempt()
    assert scene.store.contents.keys() == {key("a")}


def test_who_loses_the_job_while_it_removes_files_removes_no_more(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removal, "_AT_ONCE", 1)
    deleted = scene.store.delete

    def delete(keys: list[str]) -> None:
        deleted(keys)
        # By now somebody else may have stored the others anew, and committed.
        scene.lease.valid_until = float("-inf")

    scene.store.delete = delete  # type: ignore[method-assign]
    scene.server.on_submit = lambda: scene.announce("9", "a", "b", "c")
    scene.server.entry = FAILURE
    with scene.holding():
        with pytest.raises(AttemptFailed):
            scene.attempt()
    assert len(scene.store.contents) == 2


@pytest.mark.parametrize(("reason", "stays"), [(LeaseLost("x"), True), (WorkerLeaving("x"), False)])
def test_what_is_stored_of_a_prompt_that_goes_on_stays(
    scene: Scene, reason: HandedOn, stays: bool
) -> None:
    scene.server.on_submit = lambda: scene.announce("9", "a")
    scene.server.steps = [lambda: scene.lease.control.stop(reason)]
    with scene.holding():
        with pytest.raises(HandedOn):
            scene.attempt()
    # Whoever goes on with the prompt stores the same. One that is stopped nobody goes on with.
    assert (scene.store.contents.keys() == {key("a")}) == stays
    assert stays or not scene.store.contents


def held_file(scene: Scene) -> tuple[threading.Event, threading.Event]:
    """When a file is asked for, and what lets it come."""
    begun, go_on = threading.Event(), threading.Event()

    def slowly() -> None:
        begun.set()
        assert go_on.wait(LONG)

    scene.server.on_view = slowly
    return begun, go_on


def test_who_is_handed_on_waits_for_no_file(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = held_file(scene)
    monkeypatch.setattr(storing, "_ABANDON_SECONDS", 3600.0)

    def leave() -> None:
        assert begun.wait(LONG)
        scene.lease.control.stop(WorkerLeaving("x"))

    scene.server.on_submit = lambda: scene.tell("9", "a")
    scene.server.steps = [leave]
    with scene.holding():
        with pytest.raises(WorkerLeaving):
            scene.attempt()
    go_on.set()


def test_what_is_under_way_when_the_attempt_fails_is_removed_as_well(scene: Scene) -> None:
    begun, go_on = held_file(scene)

    def end() -> None:
        assert begun.wait(LONG)
        scene.server.end()
        # Before it is known how the prompt has ended, and so while the file is waited for.
        threading.Timer(0.05, go_on.set).start()

    scene.server.on_submit = lambda: scene.tell("9", "a")
    scene.server.entry = FAILURE
    scene.server.steps = [end]
    with scene.holding():
        with pytest.raises(AttemptFailed):
            scene.attempt()
    assert go_on.is_set()
    assert scene.store.contents == {}


def test_of_a_cancelled_job_nothing_is_left(scene: Scene) -> None:
    scene.server.on_submit = lambda: scene.announce("9", "a")
    scene.server.steps = [lambda: scene.lease.control.stop(JobCancelledError("x"))]
    with scene.holding():
        with pytest.raises(JobCancelledError):
            scene.attempt()
    assert (scene.store.contents, scene.server.cancelled) == ({}, [PROMPT])


def test_what_cannot_be_removed_hides_no_failure(scene: Scene) -> None:
    scene.server.on_submit = lambda: scene.announce("9", "a")
    scene.server.entry = FAILURE
    scene.server.steps = [
        lambda: (scene.store.errors.append(StorageUnavailableError("away")), scene.server.end())
    ]
    with scene.holding():
        with pytest.raises(AttemptFailed) as caught:
            scene.attempt()
    assert type(caught.value.error) is NodeFailedError


def test_a_file_that_is_gone_fails_the_attempt_and_takes_the_others_with_it(scene: Scene) -> None:
    def gone() -> None:
        raise OutputMissingError("gone")

    scene.server.on_submit = lambda: scene.announce("9", "a")
    scene.server.entry = {**SUCCESS, "outputs": {"9": images("a", "b")}}
    scene.server.steps = [
        lambda: (setattr(scene.server, "on_view", gone), scene.server.end()),
    ]
    with scene.holding():
        with pytest.raises(AttemptFailed) as caught:
            scene.attempt()
    assert (type(caught.value.error), caught.value.nodes) == (OutputMissingError, ("9",))
    assert scene.store.contents == {}


def test_what_is_announced_and_in_no_history_is_removed(scene: Scene) -> None:
    scene.server.on_submit = lambda: scene.announce("9", "a", "b")
    with scene.holding():
        assert [output.key for output in scene.attempt().outputs] == [key("a")]
    assert scene.store.files == {key("a")}


def test_surplus_that_cannot_be_removed_costs_no_result(scene: Scene) -> None:
    scene.server.on_submit = lambda: scene.announce("9", "a", "b")
    scene.server.steps = [
        lambda: (scene.store.errors.append(StorageUnavailableError("away")), scene.server.end())
    ]
    with scene.holding():
        assert [output.key for output in scene.attempt().outputs] == [key("a")]
    assert scene.store.files == {key("a"), key("b", 1)}


def test_surplus_that_is_being_stored_is_waited_for_and_removed(scene: Scene) -> None:
    begun, go_on = held_file(scene)

    def end() -> None:
        assert begun.wait(LONG)
        scene.server.entry = {**SUCCESS, "outputs": {}}
        scene.server.end()
        threading.Timer(0.05, go_on.set).start()

    scene.server.on_submit = lambda: scene.tell("9", "a")
    scene.server.steps = [end]
    with scene.holding():
        assert scene.attempt().outputs == []
    assert go_on.is_set()
    assert scene.store.files == set()
