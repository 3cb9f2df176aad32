"""A file that has been received: measured, digested, told by its beginning, not all in memory."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from tempfile import SpooledTemporaryFile
from typing import IO, cast

from tasks.errors import InputUnavailableError, InvalidInputError
from workers.storage.content_type import HEAD_BYTES, content_type

# Smaller ones are not worth a file.
_MEMORY_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Content:
    """What is known of a content that is not at hand.

    Attributes:
        digest: SHA-256, hexadecimal.
        media_type: told from its bytes.
    """

    digest: str
    media_type: str


class Received:
    """The file; it goes away when it is closed."""

    def __init__(self, what: str, max_bytes: int) -> None:
        """Begin with nothing.

        Args:
            what: it is, for messages.
            max_bytes: how large it may become.
        """
        self._what = what
        self._max_bytes = max_bytes
        self._spool = SpooledTemporaryFile(max_size=_MEMORY_BYTES)  # noqa: SIM115  # closed by us
        self._digest = hashlib.sha256()
        self.size = 0
        """Bytes so far."""

    @property
    def file(self) -> IO[bytes]:
        """Its bytes."""
        return cast("IO[bytes]", self._spool)

    def receive(self, pieces: Iterable[bytes], check: Callable[[], object]) -> Content:
        """Take all pieces.

        Args:
            pieces: of the file, as they come.
            check: called before each is taken; what it raises ends it.

        Raises:
            InvalidInputError: they are too many.
            InputUnavailableError: there is no space for them.
        """
        for piece in pieces:
            check()
            self.size += len(piece)
            if self.size > self._max_bytes:
                raise self.too_large(f"more than {self._max_bytes:,}")
            self._digest.update(piece)
            with self._on_disk():
                self._spool.write(piece)
        # The last of it may be written only now.
        with self._on_disk():
            self._spool.seek(0)
            head = self._spool.read(HEAD_BYTES)
        return Content(self._digest.hexdigest(), content_type(head))

    @contextmanager
    def _on_disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InputUnavailableError(
                f"{self._what}: cannot be kept on the worker's disk ({error.strerror})"
            ) from error

    def expect(self, size: int | None) -> None:
        """Refuse a size that has been announced.

        Raises:
            InvalidInputError: it is too large.
        """
        if size is not None and size > self._max_bytes:
            raise self.too_large(f"{size:,}")

    def too_large(self, size: str) -> InvalidInputError:
        """The error of a file of this size."""
        return InvalidInputError(
            f"{self._what}: has {size} bytes, at most {self._max_bytes:,} are allowed "
            "(INPUT_MAX_BYTES)"
        )

    def close(self) -> None:
        """Forget it."""
        # What could not be written it tries to write once more.
        with suppress(OSError):
            self._spool.close()
