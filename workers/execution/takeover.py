"""What became of the prompt of an earlier attempt, and what a new one can do with it."""

import logging
from collections.abc import Callable

from tasks.errors import JobError
from workers.comfyui import ComfyUI
from workers.comfyui.model import PromptState
from workers.execution.job import Start, prompt_id
from workers.execution.place import Place
from workers.ledger import Ledger, Record

logger = logging.getLogger(__name__)


class Takeover:
    """Finds prompts on this worker's server and on others. Thread-safe."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        comfyui: ComfyUI,
        server_at: Callable[[str], ComfyUI],
        place: Place,
    ) -> None:
        """Take the clients; they stay their maker's to close.

        Args:
            ledger: takes orders to stop prompts that cannot be reached.
            comfyui: this worker's server.
            server_at: makes a client of another server, by its base URL.
            place: of this worker's server.
        """
        self._ledger = ledger
        self._comfyui = comfyui
        self._server_at = server_at
        self._place = place

    def of(self, job_id: str, record: Record) -> Start:
        """How the next attempt comes by its prompt; one that runs elsewhere is stopped.

        Raises:
            JobError: this worker's own server, or the ledger, does not say.
        """
        if record.spent:
            return Start.SUBMIT
        prompt = prompt_id(job_id, record.prompt)
        if record.place == self._place.key:
            if self._comfyui.state_of(prompt) is PromptState.UNKNOWN:
                return Start.SUBMIT
            # An earlier order to stop it must not reach who goes on with it.
            self._ledger.stopped(record.place, [prompt])
            return Start.ADOPT
        if self._place.reaches(record.place, record.instance):
            try:
                with self._server_at(record.instance) as server:
                    if server.state_of(prompt) is PromptState.ENDED:
                        return Start.COLLECT
                    server.cancel(prompt)
                return Start.SUBMIT
            except JobError as error:
                logger.info("%s; its prompt there is to be stopped", error)
        self._ledger.order_stop(record.place, prompt)
        return Start.SUBMIT

    def is_worth_waiting_for(self, job_id: str, record: Record) -> bool:
        """Whether a worker of the place where the prompt is could go on with it, and no other."""
        if record.spent or not self._place.reaches(record.place, record.instance):
            return True
        return self._state_of(job_id, record) is PromptState.QUEUED

    def had_begun(self, job_id: str, record: Record) -> bool:
        """Whether a server may have begun with the prompt: not if it still waits there."""
        if not self._place.reaches(record.place, record.instance):
            return True
        try:
            with self._server_at(record.instance) as server:
                return prompt_id(job_id, record.prompt) not in server.queue().pending
        except JobError:
            return True

    def has_ended(self, job_id: str, record: Record) -> bool:
        """Whether what the prompt has rendered can be collected."""
        if record.spent or not self._place.reaches(record.place, record.instance):
            return False
        return self._state_of(job_id, record) is PromptState.ENDED

    def stop(self, job_id: str, record: Record) -> None:
        """Have the prompt of a job that has come to its end execute for nobody."""
        prompt = prompt_id(job_id, record.prompt)
        try:
            if not record.spent and not self._is_stopped(prompt, record):
                self._ledger.order_stop(record.place, prompt)
        except JobError as error:
            logger.warning("its prompt may run for nobody: %s", error)

    def _state_of(self, job_id: str, record: Record) -> PromptState | None:
        """What a server within reach knows of the prompt; None if it does not say."""
        try:
            with self._server_at(record.instance) as server:
                return server.state_of(prompt_id(job_id, record.prompt))
        except JobError:
            return None

    def _is_stopped(self, prompt: str, record: Record) -> bool:
        if record.place == self._place.key:
            return self._comfyui.try_cancel(prompt)
        if not self._place.reaches(record.place, record.instance):
            return False
        with self._server_at(record.instance) as server:
            return server.try_cancel(prompt)
