"""How a failure is kept in the ledger, for everybody who asks for the job after its end."""

import json
from collections.abc import Iterable

from tasks import errors
from tasks.errors import InternalError, JobError
from tasks.result import Attempt


class JobFailed(Exception):  # noqa: N818  # an outcome, of which the error is a part
    """The job has failed: its error, and every attempt at it."""

    def __init__(self, error: JobError, attempts: Iterable[Attempt]) -> None:
        """Tell how it ended."""
        super().__init__(error)
        self.error = error
        self.attempts = tuple(attempts)


def failure_detail(failed: JobFailed) -> str:
    """A failure as the ledger keeps it."""
    attempts = [attempt.model_dump(mode="json") for attempt in failed.attempts]
    error = failed.error
    return json.dumps(
        {"type": type(error).__name__, "message": error.message, "attempts": attempts}
    )


def failure_from(detail: str) -> JobFailed:
    """The failure that was kept in the ledger."""
    kept = json.loads(detail)
    leaf = getattr(errors, kept["type"], InternalError)
    attempts = (Attempt.model_validate(one) for one in kept["attempts"])
    return JobFailed(leaf(kept["message"]), attempts)
