"""What a store does with conditions, and whether it can be written: found out by doing it."""

import logging
import threading
import uuid
from dataclasses import dataclass

from tasks.errors import JobError, StorageUnavailableError
from workers.storage.seam import answer
from workers.storage.store import ObjectStore

logger = logging.getLogger(__name__)

_FOLDER = "comfyfleet-probe"
_CONTENT = b"comfyfleet looks whether it can write here"
_TEXT = "text/plain"

# With these a store says that it does not know the condition.
_UNKNOWN_STATUS = (400, 501)


@dataclass(frozen=True)
class Probed:
    """What became of a small object that was written twice and removed.

    Attributes:
        takes_conditions: whether the second one was refused, as it was to be.
        date: the store's clock, an HTTP date; None if it does not tell.
        removal_error: why the object is still there, if it is.
    """

    takes_conditions: bool
    date: str | None = None
    removal_error: JobError | None = None


def probe_key(prefix: str) -> str:
    """A key below the prefix that nobody else uses."""
    return "/".join(part for part in (prefix, _FOLDER, uuid.uuid4().hex) if part)


def takes_conditions(store: ObjectStore, key: str) -> bool:
    """Whether the store refuses a second object of one key if it is told to; the first one stays.

    Raises:
        StorageUnavailableError, StorageDeniedError: it cannot be written.
    """
    try:
        store.create(key, _CONTENT, _TEXT)
        return not store.create(key, _CONTENT, _TEXT)
    except StorageUnavailableError as error:
        if answer(error)[0] not in _UNKNOWN_STATUS:
            raise
    # If this one is taken it was the condition that the store did not like.
    store.replace(key, _CONTENT, _TEXT)
    return False


def probe(store: ObjectStore, prefix: str) -> Probed:
    """Look for the bucket, write an object twice and remove it.

    Raises:
        StorageUnavailableError, StorageDeniedError: the store cannot be written.
    """
    date = store.look()
    key = probe_key(prefix)
    conditional = takes_conditions(store, key)
    try:
        store.delete([key])
    except JobError as error:
        return Probed(conditional, date, error)
    return Probed(conditional, date)


class Conditions:
    """Whether a store takes conditions: asked once, when it can be asked. Thread-safe."""

    def __init__(self, store: ObjectStore, prefix: str) -> None:
        """Take the store; it stays its maker's to close.

        Args:
            store: that is asked.
            prefix: below which it is written.
        """
        self._store = store
        self._prefix = prefix
        self._lock = threading.Lock()
        self._taken: bool | None = None

    def are_taken(self) -> bool:
        """Whether the store refuses what it is told to refuse.

        Raises:
            StorageUnavailableError, StorageDeniedError: that is not known yet.
        """
        known = self._taken
        if known is not None:
            return known
        with self._lock:
            return self._ask().takes_conditions if self._taken is None else self._taken

    def look(self) -> Probed:
        """Look anew whether the store can be written; what it does with conditions is told once.

        Raises:
            StorageUnavailableError, StorageDeniedError: it cannot.
        """
        with self._lock:
            return self._ask()

    def _ask(self) -> Probed:
        probed = probe(self._store, self._prefix)
        if probed.removal_error is not None:
            logger.warning(
                "%s; what cancelled and failed jobs have stored will stay: allow s3:DeleteObject",
                probed.removal_error,
            )
        if self._taken is not False and not probed.takes_conditions:
            logger.warning(
                "the store of bucket %r does not take conditional writes (If-None-Match): which "
                "attempt commits a job is decided in Redis, so that a Redis which forgets may have "
                "a job committed again",
                self._store.bucket,
            )
        self._taken = probed.takes_conditions
        return probed
