"""What happens after an attempt failed: a decision from values alone."""

from dataclasses import dataclass

from tasks.errors import JobError, TransientError

BASE_SECONDS = 2.0
CAP_SECONDS = 60.0


@dataclass(frozen=True)
class Retry:
    """Try again after so many seconds."""

    seconds: float


@dataclass(frozen=True)
class Fail:
    """The job has failed."""


def after_failure(error: JobError, attempt: int, max_attempts: int, jitter: float) -> Retry | Fail:
    """Decide what follows the failure of an attempt.

    Args:
        error: what ended the attempt.
        attempt: its number, from 1.
        max_attempts: how many the job may have.
        jitter: a random number in [0, 1), so that jobs which failed together do not return so.
    """
    if not isinstance(error, TransientError) or attempt >= max_attempts:
        return Fail()
    delay = min(CAP_SECONDS, BASE_SECONDS * 2 ** (attempt - 1))
    return Retry(delay * (0.5 + jitter / 2))
