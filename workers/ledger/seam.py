"""The one place where errors of the Redis client become ours."""

from collections.abc import Iterator
from contextlib import contextmanager

import redis

from tasks.errors import BrokerFullError, BrokerUnavailableError, JobError

FOREIGN_ERRORS = (redis.RedisError,)


@contextmanager
def translated() -> Iterator[None]:
    """Raise this project's error for each one that the Redis client raises inside.

    Raises:
        BrokerUnavailableError: there was no answer, or one that asks to come again.
        BrokerFullError: Redis has no memory left for what was to be written.
    """
    try:
        yield
    except FOREIGN_ERRORS as error:
        raise meaning_of(error) from error


def meaning_of(error: Exception) -> JobError:
    """The error of ours that stands for one of the Redis client's."""
    # Inside a script it comes as an error of the script, with Redis' own code in its text.
    if isinstance(error, redis.OutOfMemoryError) or str(error).startswith(("OOM ", "-OOM ")):
        return BrokerFullError(
            "Redis is out of memory (maxmemory is reached and its policy is noeviction); "
            "give it more, or let results expire sooner (RESULT_EXPIRES)"
        )
    if isinstance(error, redis.exceptions.NoPermissionError):
        return BrokerUnavailableError(
            "Redis does not let this user do that; its ACL must allow it (docs/security.md)"
        )
    return BrokerUnavailableError(f"Redis did not answer ({type(error).__name__})")
