"""What a worker tells the fleet of itself."""

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from tasks.errors import CancelledError
from workers.ledger.fleet import State, WorkerJob, WorkerStatus
from workers.observing import AttemptEnded, Event, JobEnded
from workers.version import own_version


class Keeper(Protocol):
    """What has the worker's jobs."""

    def stages(self) -> list[tuple[str, str, float]]:
        """Each job, its stage, and when it was taken (monotonic clock)."""


class Circuit(Protocol):
    """What knows whether something that the worker needs can be used."""

    @property
    def closed(self) -> bool:
        """Whether it can."""

    @property
    def reason(self) -> str:
        """Why not."""


class Presence:
    """Knows this worker as others see it, and observes what goes wrong. Thread-safe."""

    def __init__(
        self,
        keeper: Keeper,
        circuits: Sequence[Circuit],
        *,
        id: str,  # noqa: A002  # the field's name
        worker: str,
        instance: str,
        slots: int,
        is_leaving: Callable[[], bool],
        comfyui_version: Callable[[], str],
    ) -> None:
        """Take what knows of it.

        Args:
            keeper: of the worker's jobs.
            circuits: to its server, and to its store.
            id: of its process.
            worker: its name.
            instance: base URL of its server.
            slots: how many jobs it has at most.
            is_leaving: whether it was asked to end.
            comfyui_version: of its server, empty while that is not known.
        """
        self._keeper = keeper
        self._circuits = circuits
        self.id = id
        self._about = {"id": id, "worker": worker, "instance": instance}
        self._slots = slots
        self._is_leaving = is_leaving
        self._comfyui_version = comfyui_version
        self._version = own_version()
        self._started_at = time.time()
        self._last_error: tuple[str, float] | None = None

    def __call__(self, event: Event) -> None:
        """Note what has failed."""
        if isinstance(event, AttemptEnded | JobEnded):
            error = event.error
            if error is not None and not isinstance(error, CancelledError):
                self._last_error = (f"{type(error).__name__}: {error.message}", time.time())

    def status(self) -> WorkerStatus:
        """The worker as it is now."""
        offset = time.time() - time.monotonic()
        jobs = tuple(
            WorkerJob(job_id=job_id, stage=stage, since=round(taken_at + offset, 3))
            for job_id, stage, taken_at in self._keeper.stages()
        )
        error, error_at = self._last_error or (None, None)
        opened = next((one for one in self._circuits if not one.closed), None)
        return WorkerStatus(
            **self._about,
            state=state_of(leaving=self._is_leaving(), closed=opened is None, busy=bool(jobs)),
            slots=self._slots,
            jobs=jobs,
            reason=opened.reason if opened else "",
            last_error=error,
            last_error_at=error_at,
            version=self._version,
            comfyui_version=self._comfyui_version(),
            started_at=self._started_at,
        )


def state_of(*, leaving: bool, closed: bool, busy: bool) -> State:
    """The state of a worker: of several the one that says most of what comes next."""
    if leaving:
        return "leaving"
    if not closed:
        return "paused"
    return "busy" if busy else "ready"
