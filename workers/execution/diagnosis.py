"""What the failure of an attempt says: of its server, and of the job's own part in it."""

import time
from collections.abc import Callable

from tasks.errors import (
    ComfyUIAccessDeniedError,
    ComfyUIProtocolError,
    ComfyUIUnavailableError,
    JobError,
    PromptLostError,
)
from workers.comfyui import ComfyUI, Notifications
from workers.execution.job import AttemptFailed, Start
from workers.execution.patience import soon
from workers.execution.run import Run

# Seconds after which a job that was seen to execute says nothing about others any more.
_SEEN_SECONDS = 30.0

_SERVER_TROUBLE = (
    ComfyUIAccessDeniedError,
    ComfyUIProtocolError,
    ComfyUIUnavailableError,
    PromptLostError,
)


class Diagnosis:
    """Tells what the failures on one server say. Thread-safe."""

    def __init__(
        self, comfyui: ComfyUI, notifications: Notifications, suspect: Callable[[], None]
    ) -> None:
        """Take the clients; they stay their maker's to close.

        Args:
            comfyui: the server.
            notifications: its websocket.
            suspect: has a look at the server: something is wrong with it.
        """
        self._comfyui = comfyui
        self._notifications = notifications
        self._suspect = suspect
        # The job that was seen to execute last, and when (monotonic clock).
        self._seen_executing = ("", float("-inf"))

    def see_executing(self, job_id: str) -> None:
        """Note that the server executes a job's prompt: none of the others."""
        self._seen_executing = (job_id, time.monotonic())

    def see_ended(self) -> None:
        """Note that what was seen to execute has ended."""
        self._seen_executing = ("", float("-inf"))

    def of(self, run: Run, error: JobError) -> AttemptFailed:
        """An attempt that has failed, with what that says; the server is suspected if need be."""
        in_trouble = isinstance(error, _SERVER_TROUBLE)
        if in_trouble and run.job.start is not Start.COLLECT:
            self._suspect()
        executing = run.executing or self._went_down_with(run)
        return AttemptFailed(
            error,
            executing=executing,
            waited=in_trouble and not (executing or run.rendered) and self._has_waited(run),
            rendered=run.rendered,
            nodes=run.nodes,
        )

    def _went_down_with(self, run: Run) -> bool:
        """Whether the server died of a prompt before it was seen to execute."""
        if run.submitted_at is None or self._notifications.held_since(run.submitted_at):
            return False
        other, seen_at = self._seen_executing
        return other == run.job.id or time.monotonic() - seen_at > _SEEN_SECONDS

    def _has_waited(self, run: Run) -> bool:
        """Whether a job that failed before it executed did so for no reason of its own."""
        if run.submitted_at is not None or run.job.start is not Start.SUBMIT:
            return True
        # A server that is there may have refused just this job.
        return run.refused or soon(self._comfyui.queue) is None
