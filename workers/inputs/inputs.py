"""Input files: had once, placed once, and the workflow pointed at them."""

import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from tasks.errors import InputUnavailableError, InvalidInputError
from tasks.request import shown
from tasks.workflow import Workflow
from workers.comfyui import ComfyUI
from workers.comfyui.model import FileRef
from workers.inputs.kinds import check_kind
from workers.inputs.names import check_name, place_of, users_of, with_names
from workers.inputs.received import Content, Received
from workers.inputs.sources import Sources

K = TypeVar("K")
V = TypeVar("V")

# Of one job, by default.
_MAX_COUNT, _MAX_TOTAL_BYTES = 64, 1024**3
# Placed files that are remembered, and sources of known content.
_MOST_REMEMBERED = 10_000
# Seconds for which nobody tries again what could not be had: for those who waited for it together.
_FAILED_SECONDS = 0.5
# Seconds between two looks of one who waits at whether he is still to.
_CHECK_SECONDS = 0.5
# More characters than any URL or key of a bucket may have.
_LONGEST_PLACE = 16 * 1024


class Inputs:
    """Places the input files of jobs on one server, the same content only once. Thread-safe.

    A file lies in a folder that is named after its content, so that files of different content
    never meet, whatever their names.
    """

    def __init__(
        self,
        *,
        comfyui: ComfyUI,
        sources: Sources,
        max_bytes: int,
        max_total_bytes: int = _MAX_TOTAL_BYTES,
        max_count: int = _MAX_COUNT,
    ) -> None:
        """Take the clients; they stay their maker's to close.

        Args:
            comfyui: the server.
            sources: where the files are.
            max_bytes: size above which a file is refused.
            max_total_bytes: size of all that is fetched for a job above which it is refused.
            max_count: files of a job above which it is refused.
        """
        self._comfyui = comfyui
        self._sources = sources
        self._max_bytes = max_bytes
        self._max_total_bytes = max_total_bytes
        self._max_count = max_count
        # A second job with the same file waits until the first one's is there; others do not.
        self._locks: WeakValueDictionary[str, threading.Lock] = WeakValueDictionary()
        self._remembering = threading.Lock()
        self._placed: dict[tuple[str, str], FileRef] = {}
        self._contents: dict[bytes, tuple[str, Content]] = {}
        # Sources that could not be had: when that was found (monotonic clock), and why.
        self._failed: dict[bytes, tuple[float, str]] = {}

    def place(
        self,
        workflow: Workflow,
        inputs: Mapping[str, str],
        check: Callable[[], object] = lambda: None,
    ) -> dict[str, Any]:
        """Place each file and return the workflow that uses it where it is.

        Args:
            workflow: a checked one.
            inputs: names to sources.
            check: called while files come; what it raises ends it.

        Raises:
            InvalidInputError: a file is not used, cannot be had, is too large, is not what its
                nodes load or is refused; or they are too many, or too large together.
            InputUnavailableError, StorageUnavailableError, StorageDeniedError: it may come later.
        """
        if not inputs:
            return dict(workflow)
        if len(inputs) > self._max_count:
            raise InvalidInputError(
                f"the job has {len(inputs):,} inputs, at most {self._max_count:,} are allowed "
                "(INPUT_MAX_COUNT)"
            )
        users = users_of(workflow, inputs)
        for name in inputs:
            if not users[name]:
                raise InvalidInputError(
                    f"input {shown(name)}: no node of the workflow has it as a value"
                )
            check_name(name)
        placed: dict[str, str] = {}
        fetched = 0
        for name, source in inputs.items():
            fits = partial(check_kind, name, workflow=workflow, users=users[name])
            with self._alone_with(source, check):
                file, size = self._place(name, source, fits, check)
            fetched += size
            if fetched > self._max_total_bytes:
                raise InvalidInputError(
                    f"the inputs up to {shown(name)} have {fetched:,} bytes, at most "
                    f"{self._max_total_bytes:,} are allowed (INPUT_MAX_TOTAL_BYTES)"
                )
            placed[name] = f"{file.subfolder}/{file.filename}" if file.subfolder else file.filename
        return with_names(workflow, placed)

    def _place(
        self,
        name: str,
        source: str,
        fits: Callable[[str], None],
        check: Callable[[], object],
    ) -> tuple[FileRef, int]:
        """Where a file is, and how many bytes were fetched for that."""
        known = self._contents.get(_key(source))
        file = self._found(name, known[1].digest) if known else None
        with closing(Received(f"input {shown(name)}", self._max_bytes)) as received:
            # What is not on the server any more is needed though it is known.
            content = self._receive(name, source, received, known if file else None, check)
            fits(content.media_type)
            if file and known and content == known[1]:
                return file, received.size
            found = self._found(name, content.digest) or self._upload(name, content, received)
            return found, received.size

    def _receive(
        self,
        name: str,
        source: str,
        received: Received,
        known: tuple[str, Content] | None,
        check: Callable[[], object],
    ) -> Content:
        """Read a source, unless it is what is known."""
        tag, content = known or ("", None)
        with self._sources.opened(name, source, tag) as opened:
            if content is not None and not opened.changed:
                return content
            received.expect(opened.size)
            content = received.receive(opened.pieces, check)
        if opened.tag:
            self._remember(self._contents, _key(source), (opened.tag, content))
        return content

    def _upload(self, name: str, content: Content, received: Received) -> FileRef:
        subfolder, filename = place_of(name, content.digest)
        # Not over what is there: it is the same, and somebody may be reading it.
        file = self._comfyui.upload_image(filename, received.file, subfolder=subfolder)
        self._remember(self._placed, (name, content.digest), file)
        return file

    @contextmanager
    def _alone_with(self, source: str, check: Callable[[], object]) -> Iterator[None]:
        """Wait for those who have the source in hand.

        Raises:
            InputUnavailableError: one of them has just found that it cannot be had.
            Exception: what the check raises.
        """
        with self._remembering:
            lock = self._locks.setdefault(source, threading.Lock())
        while not lock.acquire(timeout=_CHECK_SECONDS):
            check()
        try:
            self._raise_if_failed(source)
        except InputUnavailableError:
            lock.release()
            raise
        try:
            yield
        except InputUnavailableError as error:
            # Who waits behind this one is not to wait for the same silence once more.
            self._remember(self._failed, _key(source), (time.monotonic(), error.message))
            raise
        finally:
            lock.release()

    def _raise_if_failed(self, source: str) -> None:
        failed_at, message = self._failed.get(_key(source), (float("-inf"), ""))
        if time.monotonic() - failed_at < _FAILED_SECONDS:
            raise InputUnavailableError(message)

    def _remember(self, known: dict[K, V], key: K, value: V) -> None:
        with self._remembering:
            # The newest are the last.
            known.pop(key, None)
            known[key] = value
            if len(known) > _MOST_REMEMBERED:
                del known[next(iter(known))]

    def _found(self, name: str, digest: str) -> FileRef | None:
        """Where a file lies that has been placed before, if it is still there."""
        file = self._placed.get((name, digest))
        return file if file is not None and self._comfyui.has(file) else None


def _key(source: str) -> bytes:
    # It may have a secret in it. Those that are longer are their own content, and not remembered.
    return hashlib.sha256(source[:_LONGEST_PLACE].encode()).digest()
