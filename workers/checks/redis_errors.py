"""What errors of the Redis client mean, and how they are mended."""

import redis
from redis import exceptions

from workers.checks.finding import Judgement, fail

NEWER = "use Redis 6.2 or newer, or Valkey"
CLUSTER = (
    "is a Redis Cluster, on which no step can cover several keys",
    "use a server without cluster mode",
)
_DENIED = ("does not allow this user what is needed", "extend the user's ACL (ACL SETUSER)")


# Errors, most special first: what their text has in it, what they mean, the fix, and whether that
# may come without it.
_MEANING: tuple[tuple[type[Exception], str, str, str, bool], ...] = (
    (
        redis.AuthenticationError,
        "",
        "refuses the password or the user, or wants one",
        "put the right one, percent-encoded, into the URL: redis://USER:PASSWORD@HOST:PORT/0",
        False,
    ),
    (exceptions.NoPermissionError, "", *_DENIED, True),
    (redis.ReadOnlyError, "", "is a read-only replica", "name the primary in the URL", True),
    (
        redis.OutOfMemoryError,
        "",
        "has no memory left (maxmemory)",
        "give it more, or let results expire sooner (RESULT_EXPIRES)",
        True,
    ),
    (redis.BusyLoadingError, "", "is still loading its data", "wait until it has", True),
    (
        redis.TimeoutError,
        "",
        "did not answer in time",
        "look at its load, and whether a firewall stops it; redis:// where it speaks no TLS",
        True,
    ),
    (
        redis.ConnectionError,
        "",
        "cannot be connected ({cause})",
        "start it, or correct host and port; rediss:// where it wants TLS",
        True,
    ),
    (
        redis.InvalidResponse,
        "",
        "is no Redis: something else answers there",
        "correct host and port",
        True,
    ),
    (
        redis.ResponseError,
        "DB index",
        "has no database of that number",
        "use number 0, or give it more (databases)",
        False,
    ),
    (
        redis.ResponseError,
        "MISCONF",
        "cannot write to its disk and refuses all writes",
        "free the disk that Redis writes to; its log says what failed",
        True,
    ),
    (redis.ResponseError, "CROSSSLOT", *CLUSTER, False),
    (redis.ResponseError, "MOVED", *CLUSTER, False),
    (
        redis.ResponseError,
        "nknown",
        "does not know commands by which messages are held",
        NEWER,
        False,
    ),
)


def judge_error(error: redis.RedisError, name: str) -> Judgement:
    """What an error of the client means; nothing of its text is shown, which may be a command."""
    for kind, mark, sentence, fix, heals in _MEANING:
        if isinstance(error, kind) and mark in str(error):
            cause = error.__cause__ or error.__context__ or error
            told = sentence.format(cause=type(cause).__name__)
            return fail(f"{name} {told}", fix, heals=heals)
    return fail(f"{name} answered with an error ({type(error).__name__})", "see its log")
