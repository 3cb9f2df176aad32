"""What becomes of the files of a job that was cancelled."""

import threading

from tasks.errors import StorageDeniedError, StorageUnavailableError
from tests.unit.one_attempt import LONG, Scene, key


def is_removed() -> None:
    """Wait for what goes on in the background."""
    for thread in threading.enumerate():
        if thread.name == "removal":
            thread.join(LONG)
            assert not thread.is_alive()


def test_what_a_cancelled_job_has_stored_is_removed_when_the_store_is_back(scene: Scene) -> None:
    scene.patience = 5.0
    scene.store.contents = {key("a"): b"1"}
    scene.store.errors = [StorageUnavailableError("away")] * 2
    scene.removal.remove(scene.job())
    # Nobody waits for it.
    assert scene.store.contents.keys() == {key("a")}
    is_removed()
    assert scene.store.contents == {}


def test_what_others_commit_until_the_store_is_back_stays(scene: Scene) -> None:
    scene.patience = 5.0
    scene.store.contents = {key("a"): b"1"}
    scene.store.errors = [StorageUnavailableError("away")] * 2
    scene.removal.remove(scene.job())
    scene.store.contents["job/manifest.json"] = b"{}"
    is_removed()
    assert scene.store.files == {key("a")}


def test_a_store_that_denies_it_is_not_asked_again(scene: Scene) -> None:
    scene.store.contents = {key("a"): b"1"}
    scene.store.errors = [StorageDeniedError("no")]
    scene.removal.remove(scene.job())
    is_removed()
    assert scene.store.contents.keys() == {key("a")}
