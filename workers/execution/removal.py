"""Takes back what a job has stored that came to nothing."""

import logging
import threading
from collections.abc import Callable, Iterable
from contextvars import copy_context

from tasks.errors import JobError, StorageUnavailableError
from workers.execution.control import Control
from workers.execution.job import Job
from workers.execution.patience import patiently
from workers.storage import ObjectStore
from workers.storage.keys import manifest_key

logger = logging.getLogger(__name__)

# Objects that are removed before it is asked again whether that may be done.
_AT_ONCE = 100


class Removal:
    """Removes objects where another error must not be hidden by one of this. Thread-safe."""

    def __init__(self, store: ObjectStore, patience_seconds: float) -> None:
        """Take the store; it stays its maker's to close.

        Args:
            store: has the objects.
            patience_seconds: for which it may be away.
        """
        self._store = store
        self._patience_seconds = patience_seconds

    def remove_files(self, keys: Iterable[str], *, may: Callable[[], bool]) -> None:
        """Remove some objects, in pieces, as long as that may be done; now or not at all."""
        left = list(keys)
        try:
            while left and may():
                some, left = left[:_AT_ONCE], left[_AT_ONCE:]
                self._store.delete(some)
        except JobError as error:
            logger.warning("its files could not be removed: %s", error)

    def remove(self, job: Job) -> None:
        """Remove all that a cancelled job has stored: now, or when the store is back."""
        try:
            self._remove(job)
        except StorageUnavailableError as error:
            logger.warning("its files cannot be removed yet: %s", error)
            # A daemon: it holds up neither the next job nor the worker's end.
            threading.Thread(
                target=copy_context().run,
                args=(self._remove_patiently, job),
                name="removal",
                daemon=True,
            ).start()
        except JobError as error:
            logger.warning("its files could not be removed: %s", error)

    def _remove_patiently(self, job: Job) -> None:
        try:
            patiently(
                lambda: self._remove(job),
                what="what it has stored",
                control=Control(),
                storage_patience=self._patience_seconds,
            )
        except JobError as error:
            logger.warning("its files could not be removed: %s", error)

    def _remove(self, job: Job) -> None:
        # Of a job that was committed by another attempt nothing is taken back.
        if self._store.stat(manifest_key(job.folder)) is None:
            self._store.delete_folder(job.folder)
