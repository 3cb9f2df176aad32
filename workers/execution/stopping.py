"""How a prompt leaves its server before it has ended: stopped, or spared."""

import logging
import time
from collections.abc import Callable

from tasks.errors import (
    ComfyUIHungError,
    JobCancelledError,
    JobError,
    JobTimeoutError,
    PromptStalledError,
)
from workers.comfyui import ComfyUI
from workers.comfyui.history import failure_in
from workers.comfyui.model import PromptState
from workers.execution.control import HandedOn, ServerHung, Spared, WorkerLeaving
from workers.execution.job import Job, Start
from workers.execution.keeper import Keeper, Lease
from workers.execution.patience import soon
from workers.execution.run import Run

logger = logging.getLogger(__name__)

# Seconds that a stopped prompt has to leave the server before the server counts as hung.
_STOP_SECONDS = 10.0

GIVEN_UP = (JobCancelledError, JobTimeoutError, PromptStalledError, ServerHung, WorkerLeaving)
"""After these nobody waits for the prompt any more: it must not hold up the next one."""


class Stopping:
    """Takes prompts off one server. Thread-safe."""

    def __init__(self, comfyui: ComfyUI, keeper: Keeper, quarantine: Callable[[str], None]) -> None:
        """Take what it works with; the client stays its maker's to close.

        Args:
            comfyui: the server.
            keeper: of this worker's leases.
            quarantine: uses the server no more until it has got rid of a prompt.
        """
        self._comfyui = comfyui
        self._keeper = keeper
        self._quarantine = quarantine

    def give_up(self, run: Run, reason: Exception) -> None:
        """Stop the prompt.

        Raises:
            ComfyUIHungError: it stalled, and cannot even be stopped.
        """
        job = run.job
        if job.start is Start.COLLECT:
            return
        if not self._try_cancel_soon(job):
            self._keeper.order_stop(job.prompt_id)
        else:
            # Only who hands the job on must know whether there is something to go on with.
            handed_on = isinstance(reason, HandedOn)
            run.lease.prompt_stopped = not (handed_on and self._has_succeeded(job))
        if not isinstance(reason, PromptStalledError):
            return
        deadline = time.monotonic() + _STOP_SECONDS
        while time.monotonic() < deadline:
            try:
                if job.prompt_id not in self._comfyui.queue():
                    return
            except JobError:
                pass
            time.sleep(_STOP_SECONDS / 20)
        self._quarantine(job.prompt_id)
        # Whatever else waits on that server waits in vain.
        self._keeper.stop_jobs(ServerHung(f"ComfyUI at {self._comfyui.base_url} hangs"))
        raise ComfyUIHungError(f"{reason}, and does not stop the prompt") from None

    def spare(self, run: Run) -> None:
        """Take the prompt out of the server's queue, unless it has begun.

        Raises:
            Spared: it is out.
        """
        prompt, control = run.job.prompt_id, run.lease.control
        try:
            self._comfyui.delete_from_queue([prompt])
            if self._comfyui.state_of(prompt) is PromptState.UNKNOWN:
                raise spared(run.lease)
        except JobError as error:
            logger.info("cannot be handed on yet: %s", error)
        else:
            control.wanted_elsewhere = False

    def _try_cancel_soon(self, job: Job) -> bool:
        """Cancel the prompt; whether the server heard, which is not waited for for long."""
        # A server that is frozen must hold up neither the next job nor the worker's end.
        return bool(soon(lambda: self._comfyui.try_cancel(job.prompt_id)))

    def _has_succeeded(self, job: Job) -> bool:
        """Whether the prompt ended well just before it was to be stopped."""
        entry = soon(lambda: self._comfyui.history(job.prompt_id))
        # Whether, not why: no node is named.
        return entry is not None and failure_in(entry, {}) is None


def spared(lease: Lease) -> Spared:
    """The job goes elsewhere, and has no prompt here with which anybody could go on."""
    lease.prompt_stopped = True
    return Spared("a server elsewhere has nothing to do")
