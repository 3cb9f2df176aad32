"""Output files on their way into the store, with all the patience that a paid render deserves."""

import itertools
import logging
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future
from concurrent.futures import wait as wait_for
from functools import partial
from typing import Any, TypeVar

from tasks.errors import (
    ComfyUIUnavailableError,
    JobError,
    StorageDeniedError,
    StorageUnavailableError,
)
from tasks.result import Output
from workers import timeline
from workers.comfyui import ComfyUI
from workers.comfyui.history import OutputFile, output_files
from workers.comfyui.model import FileRef
from workers.execution.control import Control
from workers.execution.job import Job
from workers.execution.waiting import OUTAGE_PATIENCE
from workers.storage import ObjectStore
from workers.storage.keys import output_key

T = TypeVar("T")

logger = logging.getLogger(__name__)

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0


class Uploads:
    """The output files of one attempt, each stored as soon as its node has executed. Thread-safe.

    What is stored early is a guess: what the history says in the end is what counts.
    """

    def __init__(
        self,
        job: Job,
        *,
        pool: Executor,
        server: ComfyUI,
        store: ObjectStore,
        control: Control,
        storage_patience: float,
    ) -> None:
        """Begin with none.

        Args:
            job: whose files they are.
            pool: runs the uploads.
            server: has the files; as long as the uploads, its maker's to close.
            store: gets them.
            control: ends them when there is a reason.
            storage_patience: seconds for which the store may be away, or deny access.
        """
        self._job = job
        self._pool = pool
        self._server = server
        self._store = store
        self._control = control
        self._storage_patience = storage_patience
        self._lock = threading.Lock()
        self._abandoned = False
        self._begun: dict[OutputFile, Future[Output]] = {}
        # Of files that were announced again: only their last content counts.
        self._outdated: list[tuple[OutputFile, Future[Output]]] = []

    def begin(self, node_id: str, output: Mapping[str, Any]) -> None:
        """Store what a node has put out while others execute; at the first try or not yet.

        For the listener's thread: waits for nothing.
        """
        with self._lock:
            for file in self._files({"outputs": {node_id: output}}):
                known = next((one for one in self._begun if one.file == file.file), None)
                if known is not None:
                    self._outdated.append((known, self._begun.pop(known)))
                elif not self._abandoned and not self._is_outdated(file.file):
                    self._begun[file] = self._pool.submit(self._upload, file)

    def finish(self, entry: Mapping[str, Any]) -> list[tuple[OutputFile, Callable[[], Output]]]:
        """Store all that the history names, with patience.

        Returns:
            each file, and what waits until it is stored. That raises as `patiently`.
        """
        files = self._files(entry)
        with self._lock:
            early = {file: self._begun[file] for file in files if file in self._begun}
            late = {f: self._pool.submit(self._persist, f) for f in files if f not in early}
            self._begun |= late
        return [
            (file, late[file].result if file in late else partial(self._ensure, file, early[file]))
            for file in files
        ]

    def surplus(self, named: Iterable[OutputFile], seconds: float) -> set[str]:
        """Of what the history does not name store nothing more; as `abandon`."""
        keys = {self._key(file) for file in named}
        return self._drop([one for one in self._all() if self._key(one[0]) not in keys], seconds)

    def abandon(self, seconds: float = 0.0) -> set[str]:
        """Store nothing more.

        Args:
            seconds: to wait for what is being stored.

        Returns:
            the keys of what may have been stored.
        """
        with self._lock:
            self._abandoned = True
        return self._drop(self._all(), seconds)

    def _drop(
        self, uploads: Iterable[tuple[OutputFile, Future[Output]]], seconds: float
    ) -> set[str]:
        running = [(file, upload) for file, upload in uploads if not upload.cancel()]
        wait_for([upload for _, upload in running], seconds)
        return {self._key(file) for file, _ in running}

    def _all(self) -> list[tuple[OutputFile, Future[Output]]]:
        with self._lock:
            return [*self._begun.items(), *self._outdated]

    def _is_outdated(self, file: FileRef) -> bool:
        return any(one.file == file for one, _ in self._outdated)

    def _files(self, entry: Mapping[str, Any]) -> list[OutputFile]:
        return output_files(entry, include_temp=self._job.request.output.include_temp)

    def _key(self, file: OutputFile) -> str:
        job = self._job
        return output_key(job.folder, job.prompt, file.node_id, file.index, file.file.filename)

    def _ensure(self, file: OutputFile, early: Future[Output]) -> Output:
        try:
            return early.result()
        except Exception as error:  # noqa: BLE001  # whatever it was, the next try will tell
            logger.info("job %s: %s is stored again: %s", self._job.id, file.file.filename, error)
        return self._persist(file)

    def _persist(self, file: OutputFile) -> Output:
        # What goes to the same key must not come later. That it fails would not matter.
        wait_for([one for other, one in self._outdated if self._key(other) == self._key(file)])
        return patiently(
            lambda: self._upload(file),
            what=f"job {self._job.id}: output of node {file.node_id}",
            control=self._control,
            storage_patience=self._storage_patience,
        )

    def _upload(self, file: OutputFile) -> Output:
        with self._server.view(file.file, self._control.check) as download:
            stored = self._store.put(self._key(file), download)
        timeline.mark(self._job.id, "downloaded", stored.read_at)
        timeline.mark(self._job.id, "uploaded")
        return Output(
            node_id=file.node_id,
            kind=file.kind,
            filename=file.file.filename,
            bucket=stored.bucket,
            key=stored.key,
            uri=stored.uri,
            content_type=stored.content_type,
            size_bytes=stored.size_bytes,
            sha256=stored.sha256,
        )


def patiently(
    action: Callable[[], T], *, what: str, control: Control, storage_patience: float
) -> T:
    """Do something until it succeeds: the GPU has been paid for, no fault may have it paid again.

    Args:
        action: may be done more than once.
        what: for the log.
        control: ends the waiting when there is a reason.
        storage_patience: seconds for which the store may be away, or deny access.

    Raises:
        StorageUnavailableError, StorageDeniedError, ComfyUIUnavailableError: the patience has
            ended.
        JobError: any other error of the action, at once.
        Exception: whatever reason the control gives.
    """
    failed_at: float | None = None
    for pause in _pauses():
        try:
            return action()
        except (ComfyUIUnavailableError, StorageUnavailableError, StorageDeniedError) as error:
            failed_at = failed_at or time.monotonic()
            left = failed_at + _patience(error, storage_patience) - time.monotonic()
            if left <= 0:
                raise
            logger.warning("%s: %s; again in %.1f s", what, error, min(pause, left))
        control.sleep(min(pause, left))
    raise AssertionError("pauses never end")


def _patience(error: JobError, storage_patience: float) -> float:
    return OUTAGE_PATIENCE if isinstance(error, ComfyUIUnavailableError) else storage_patience


def _pauses() -> Iterator[float]:
    for number in itertools.count():
        pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(number, 10))
        yield pause * random.uniform(0.75, 1.0)  # noqa: S311  # no secret
