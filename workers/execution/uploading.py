"""Output files on their way into the store, with all the patience that a paid render deserves."""

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor, Future
from concurrent.futures import wait as wait_for
from contextvars import copy_context
from functools import partial
from io import BytesIO
from typing import Any, NamedTuple

from tasks.errors import OutputTooLargeError, StorageDeniedError
from tasks.request import label
from tasks.result import Output, Thumbnail
from workers import timeline
from workers.comfyui import ComfyUI
from workers.comfyui.history import OutputFile, output_files
from workers.comfyui.model import FileRef
from workers.execution.control import Control
from workers.execution.job import Job
from workers.execution.output_bounds import Bounded, MostOutput
from workers.execution.patience import patiently
from workers.observing import FileStored, Observe, unobserved
from workers.outputs import NoThumbnailError, Passage
from workers.storage import ObjectStore
from workers.storage.keys import output_key, thumbnail_key

logger = logging.getLogger(__name__)


class Abandoned(Exception):  # noqa: N818  # no error: there is another one, or none
    """Nobody wants the files any more."""


# Where a file goes, and behind it where its thumbnail does, if it is to have one.
_Keys = tuple[str, ...]


class _Upload(NamedTuple):
    file: OutputFile
    future: Future[Output]


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
        most: MostOutput,
        observe: Observe = unobserved,
    ) -> None:
        """Begin with none.

        Args:
            job: whose files they are.
            pool: runs the uploads.
            server: has the files; as long as the uploads, its maker's to close.
            store: gets them.
            control: ends them when there is a reason.
            storage_patience: seconds for which the store may be away, or deny access.
            most: how much the job may make.
            observe: is told of each file that is stored.
        """
        self._job = job
        self._pool = pool
        self._server = server
        self._store = store
        self._control = control
        self._storage_patience = storage_patience
        self._most = most
        self._observe = observe
        # Of the thread that works for the job: neither the listener's nor the pool's knows which.
        self._context = copy_context()
        self._lock = threading.Lock()
        self._abandoned = False
        self._begun: dict[FileRef, _Upload] = {}
        # Of files that were announced again, by the keys that they went to: only their last content
        # counts.
        self._announced_again: set[FileRef] = set()
        self._outdated: dict[_Keys, list[Future[Output]]] = defaultdict(list)

    def begin(self, node_id: str, output: Mapping[str, Any]) -> None:
        """Store what a node has put out while others execute; at the first try or not yet.

        For the listener's thread: waits for nothing.
        """
        with self._lock:
            for file in self._files({"outputs": {node_id: output}}):
                if file.file in self._begun:
                    self._announced_again.add(file.file)
                    self._outdate(file.file)
                elif self._may_begin(file.file):
                    self._begun[file.file] = _Upload(file, self._submit(self._upload, file))

    def _may_begin(self, file: FileRef) -> bool:
        is_unsure = self._abandoned or file in self._announced_again
        return not is_unsure and len(self._begun) < self._most.count

    def finish(self, entry: Mapping[str, Any]) -> list[tuple[OutputFile, Callable[[], Output]]]:
        """Store all that the history names, with patience.

        Returns:
            each file, and what waits until it is stored. That raises as `patiently`.

        Raises:
            OutputTooLargeError: there are too many.
        """
        files = self._files(entry)
        self._most.check_count(len(files))
        with self._lock:
            return [(file, self._finish(file)) for file in files]

    def _finish(self, file: OutputFile) -> Callable[[], Output]:
        early = self._begun.get(file.file)
        if early is not None and early.file == file:
            return partial(self._ensure, file, early.future)
        if early is not None:
            self._outdate(file.file)
        late = self._submit(self._persist, file)
        self._begun[file.file] = _Upload(file, late)
        return late.result

    def _submit(self, upload: Callable[[OutputFile], Output], file: OutputFile) -> Future[Output]:
        return self._pool.submit(self._context.copy().run, upload, file)

    def _outdate(self, file: FileRef) -> None:
        upload = self._begun.pop(file)
        self._outdated[self._keys(upload.file)].append(upload.future)

    def surplus(self, named: Iterable[OutputFile], seconds: float) -> set[str]:
        """Of what the history does not name store nothing more; as `abandon`."""
        wanted = {self._keys(file) for file in named}
        return self._drop([(keys, one) for keys, one in self._all() if keys not in wanted], seconds)

    def abandon(self, seconds: float = 0.0) -> set[str]:
        """Store nothing more, and end whatever else listens to the control.

        Args:
            seconds: to wait for what is being stored.

        Returns:
            the keys of what may have been stored.
        """
        with self._lock:
            self._abandoned = True
        # Whoever waits for the store to come back must not store what is then to be removed.
        self._control.stop(Abandoned())
        return self._drop(self._all(), seconds)

    def _drop(self, uploads: Iterable[tuple[_Keys, Future[Output]]], seconds: float) -> set[str]:
        running = [(keys, upload) for keys, upload in uploads if not upload.cancel()]
        wait_for([upload for _, upload in running], seconds)
        return {key for keys, _ in running for key in keys}

    def _all(self) -> list[tuple[_Keys, Future[Output]]]:
        with self._lock:
            begun = [(self._keys(one.file), one.future) for one in self._begun.values()]
            return begun + [(keys, one) for keys, some in self._outdated.items() for one in some]

    def _files(self, entry: Mapping[str, Any]) -> list[OutputFile]:
        return output_files(entry, include_temp=self._job.request.output.include_temp)

    def _keys(self, file: OutputFile) -> _Keys:
        job = self._job
        place = job.folder, job.prompt, file.node_id, file.index, file.file.filename
        wants_thumbnail = job.request.output.thumbnail is not None
        return (output_key(*place), *([thumbnail_key(*place)] if wants_thumbnail else []))

    def _ensure(self, file: OutputFile, early: Future[Output]) -> Output:
        try:
            return early.result()
        except OutputTooLargeError:
            raise
        except Exception as error:  # noqa: BLE001  # whatever it was, the next try will tell
            logger.info("%s is stored again: %s", label(file.file.filename), error)
        return self._persist(file)

    def _persist(self, file: OutputFile) -> Output:
        # What goes to the same key must not come later. That it fails would not matter.
        wait_for(self._outdated.get(self._keys(file), ()))
        return patiently(
            lambda: self._upload(file),
            what=f"output of node {label(file.node_id)}",
            control=self._control,
            storage_patience=self._storage_patience,
        )

    def _upload(self, file: OutputFile) -> Output:
        options = self._job.request.output
        key, *thumbnail_keys = self._keys(file)
        began = time.monotonic()
        with (
            self._server.view(file.file, self._control.check) as download,
            Passage(
                Bounded(download, label(file.node_id), self._most),
                strip=options.strip_metadata,
                thumbnail=options.thumbnail,
            ) as passage,
        ):
            stored = self._store.put(key, passage.stream)
            timeline.mark(self._job.id, "downloaded", stored.read_at)
            if passage.stripped is False:
                self._warn(file, "is stored with its metadata, which cannot be told from the rest")
            thumbnails = [self._store_thumbnail(file, key, passage) for key in thumbnail_keys]
        timeline.mark(self._job.id, "uploaded")
        self._observe(
            FileStored(
                self._job.id,
                node_id=file.node_id,
                key=stored.key,
                size_bytes=stored.size_bytes,
                ended_at=time.time(),
                seconds=time.monotonic() - began,
            )
        )
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
            stripped=passage.stripped,
            thumbnail=next(iter(thumbnails), None),
        )

    def _store_thumbnail(self, file: OutputFile, key: str, passage: Passage) -> Thumbnail | None:
        try:
            small = passage.thumbnail()
            if small is None:
                return None
            stored = self._store.put(key, BytesIO(small.content))
        except (NoThumbnailError, StorageDeniedError) as error:
            # A store that has just taken the file itself refuses no more than this.
            self._warn(file, f"has no thumbnail: {error}")
            return None
        return Thumbnail(
            bucket=stored.bucket,
            key=stored.key,
            uri=stored.uri,
            content_type=stored.content_type,
            width=small.width,
            height=small.height,
            size_bytes=stored.size_bytes,
        )

    def _warn(self, file: OutputFile, what: str) -> None:
        name = label(file.file.filename)
        logger.warning("%s of node %s %s", name, label(file.node_id), what)
