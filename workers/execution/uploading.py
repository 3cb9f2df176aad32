"""Output files on their way into the store, with all the patience that a paid render deserves."""

import itertools
import logging
import random
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from tasks.errors import ComfyUIUnavailableError, JobError, StorageUnavailableError
from tasks.result import Output
from workers.comfyui import ComfyUI
from workers.comfyui.history import OutputFile
from workers.execution.control import Control
from workers.execution.waiting import OUTAGE_PATIENCE
from workers.storage import ObjectStore
from workers.storage.keys import output_key

T = TypeVar("T")

logger = logging.getLogger(__name__)

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0


def upload(
    output: OutputFile, folder: str, attempt: int, *, comfyui: ComfyUI, store: ObjectStore
) -> Output:
    """Stream one output file from the server into the store."""
    key = output_key(folder, attempt, output.node_id, output.index, output.file.filename)
    with comfyui.view(output.file) as download:
        stored = store.put(key, download)
    return Output(
        node_id=output.node_id,
        kind=output.kind,
        filename=output.file.filename,
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
        storage_patience: seconds for which the store may be away.

    Raises:
        StorageUnavailableError, ComfyUIUnavailableError: the patience has ended.
        JobError: any other error of the action, at once.
        Exception: whatever reason the control gives.
    """
    failed_at: float | None = None
    for pause in _pauses():
        try:
            return action()
        except (ComfyUIUnavailableError, StorageUnavailableError) as error:
            failed_at = failed_at or time.monotonic()
            left = failed_at + _patience(error, storage_patience) - time.monotonic()
            if left <= 0:
                raise
            logger.warning("%s: %s; again in %.1f s", what, error, min(pause, left))
        control.sleep(min(pause, left))
    raise AssertionError("pauses never end")


def _patience(error: JobError, storage_patience: float) -> float:
    return storage_patience if isinstance(error, StorageUnavailableError) else OUTAGE_PATIENCE


def _pauses() -> Iterator[float]:
    for number in itertools.count():
        pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(number, 10))
        yield pause * random.uniform(0.75, 1.0)  # noqa: S311  # no secret
