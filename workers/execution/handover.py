"""How a job that shall not end here is left to other workers."""

import logging
from typing import Any, NoReturn

from tasks.errors import JobError
from tasks.result import Attempt
from workers.comfyui import ComfyUI
from workers.execution.control import HandedOn, LeaseLost, ServerLost, Spared
from workers.execution.job import Job
from workers.execution.keeper import Lease
from workers.execution.order import LOOK_SECONDS, NotNow
from workers.execution.placement import preferring
from workers.ledger import Ledger, Record, Route

logger = logging.getLogger(__name__)


class Handover:
    """Leaves jobs to others. Thread-safe."""

    def __init__(self, *, ledger: Ledger, comfyui: ComfyUI, place: str) -> None:
        """Take the clients; they stay their maker's to close.

        Args:
            ledger: is given the jobs back.
            comfyui: this worker's server.
            place: of that server.
        """
        self._ledger = ledger
        self._comfyui = comfyui
        self._place = place

    def hand_on(
        self, lease: Lease, job: Job, record: Record, reason: HandedOn, *, seconds: float
    ) -> NoReturn:
        """Leave the job to others, after an attempt of so many seconds.

        Raises:
            NotNow: always.
        """
        logger.info("handed on: %s", reason)
        if isinstance(reason, LeaseLost):
            self._stop_unless_adopted(lease, job)
            raise NotNow(LOOK_SECONDS)
        changes: dict[str, Any] = {"route": Route(), "spent": record.spent or lease.prompt_stopped}
        if isinstance(reason, ServerLost):
            # Who has the server now can go on with what runs there.
            changes["route"] = preferring(record.place, lease.now())
        if not isinstance(reason, Spared):
            # One that was spared this server has not been tried.
            changes["attempts"] = (*record.attempts, _left(job, reason, seconds))
        try:
            released = record.model_copy(update=changes)
            if not self._ledger.release(lease.job_id, lease.token, released):
                self._stop_unless_adopted(lease, job)
        except JobError as error:
            # The lease runs out by itself.
            logger.warning("could not be let go of: %s", error)
        raise NotNow(0.0)

    def _stop_unless_adopted(self, lease: Lease, job: Job) -> None:
        try:
            current = self._ledger.record(lease.job_id)
        except JobError:
            return
        mine = (self._place, job.prompt)
        if current is None or (current.place, current.prompt) != mine:
            self._comfyui.try_cancel(job.prompt_id)


def _left(job: Job, reason: HandedOn, seconds: float) -> Attempt:
    told = f"{type(reason).__name__}: {reason}"
    return job.attempt(seconds, None).model_copy(update={"error": told})
