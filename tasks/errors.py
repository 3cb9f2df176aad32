"""The error tree: every way in which a job can end without a result.

Each leaf is exactly one of transient (another attempt may succeed), permanent (none will) or
cancelled (somebody asked for it). The class decides about the retry, never the message. The
message is one sentence for the person who enqueued the job; it is the only constructor argument,
so that Celery's JSON carries type and message through the result backend unchanged.
"""

from collections.abc import Mapping, Sequence
from typing import Any

MOST_CHARACTERS = 1000


class JobError(Exception):
    """A job ended without a result. Never raised itself, only its leaves are."""

    attempts: Sequence[Mapping[str, Any]] = ()
    """Each attempt at the job, as the fields of `tasks.result.Attempt`; only in the worker."""

    def __init__(self, message: str) -> None:
        text = " ".join(message.split())
        # Names and values from outside are part of messages, and may be megabytes.
        cut = f"{text[: MOST_CHARACTERS - 3]}..."
        super().__init__(text if len(text) <= MOST_CHARACTERS else cut)

    @property
    def message(self) -> str:
        """What happened, in one sentence."""
        return str(self.args[0])


class TransientError(JobError):
    """Another attempt, perhaps on another server, may succeed."""


class PermanentError(JobError):
    """The same job would end the same way anywhere, at any time."""


class CancelledError(JobError):
    """Somebody asked for the job to end."""


class ComfyUIUnavailableError(TransientError):
    """ComfyUI refused or cut the connection, did not answer in time or answered 5xx."""


class ComfyUIProtocolError(TransientError):
    """Something answered at ComfyUI's address in a way that ComfyUI does not."""


class ComfyUIAccessDeniedError(TransientError):
    """ComfyUI, or the proxy before it, wants other credentials than this worker has."""


class PromptLostError(TransientError):
    """ComfyUI knows nothing of the prompt any more: it was restarted or its queue cleared."""


class PromptInterruptedError(TransientError):
    """The prompt was interrupted on the server, not by us."""


class OutOfMemoryError(TransientError):
    """A node ran out of device memory."""


class OutputMissingError(TransientError):
    """The history names an output file that the server no longer has."""


class StorageUnavailableError(TransientError):
    """The object store refused or cut the connection, throttled or answered 5xx."""


class StorageDeniedError(TransientError):
    """The object store has no such bucket or does not let this worker write to it."""


class InputUnavailableError(TransientError):
    """An input may come later: its host is away, slow or answers 5xx or 429, or a disk is full."""


class PromptStalledError(TransientError):
    """The prompt, or the server with it, showed no sign of life for too long."""


class ComfyUIHungError(TransientError):
    """The server went on with a prompt of which nothing was seen any more, and could not be told.

    Until it has got rid of that prompt it is used no more.
    """


class HistoryUnreadableError(TransientError):
    """The prompt has ended, and ComfyUI does not say in a readable way how."""


class WorkerDiedError(TransientError):
    """The worker that had the job vanished."""


class BrokerUnavailableError(TransientError):
    """Redis refused or cut the connection, or did not answer in time."""


class BrokerFullError(TransientError):
    """Redis has no memory left for what was to be written."""


class InvalidRequestError(PermanentError):
    """The task's arguments are wrong."""


class InvalidWorkflowError(PermanentError):
    """The workflow is no workflow, or ComfyUI refuses it."""


class InvalidInputError(PermanentError):
    """An input file is not there, not allowed, too large or of a type that its node cannot load."""


class NodeForbiddenError(PermanentError):
    """The workflow uses a node class that the fleet's operator does not allow."""


class UntrustedMessageError(PermanentError):
    """The job's message is not signed by somebody whom this fleet believes."""


class OutputTooLargeError(PermanentError):
    """The job made more files, or a larger one, than the fleet's operator allows."""


class NodeFailedError(PermanentError):
    """A node raised while it executed."""


class JobTimeoutError(PermanentError):
    """The job took longer than its `timeout_seconds`."""


class PoisonedJobError(PermanentError):
    """The job took its worker or its ComfyUI down too often; it lies in the dead letters."""


class InternalError(PermanentError):
    """A fault of comfyfleet's own; the worker's log has the traceback.

    Every foreign error has a leaf of its own, so that what is left would come again.
    """


class JobCancelledError(CancelledError):
    """The job was revoked."""


class JobExpiredError(CancelledError):
    """The job was not begun before its `expires`."""
