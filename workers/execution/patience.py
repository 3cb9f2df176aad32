"""How long an answer is waited for: with the patience that a paid render deserves, or briefly."""

import itertools
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from contextvars import copy_context
from typing import TypeVar

from tasks.errors import (
    ComfyUIUnavailableError,
    JobError,
    StorageDeniedError,
    StorageUnavailableError,
)
from workers.execution.control import Control
from workers.execution.waiting import OUTAGE_PATIENCE

T = TypeVar("T")

logger = logging.getLogger(__name__)

SOON_SECONDS = 2.0
"""Seconds that a server or the store has for an answer that can be done without."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0


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


def soon(ask: Callable[[], T]) -> T | None:
    """The answer to a question, if there is one soon."""
    answers: list[T] = []

    def listen() -> None:
        with suppress(JobError):
            answers.append(ask())

    thread = threading.Thread(target=copy_context().run, args=(listen,), daemon=True)
    thread.start()
    thread.join(SOON_SECONDS)
    return answers[0] if answers else None
