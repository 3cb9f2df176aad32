"""Whether clocks agree."""

from workers.checks.finding import Judgement, fail, ok, warn

# S3 refuses what was signed by a clock that is further off.
_MOST_S3_SECONDS = 900
# A tenth of that is reason enough to look after the clock.
_MUCH_S3_SECONDS = 90
# `expires`, `countdown` and the time that jobs have waited are told by producers' and workers'
# clocks; leases are not.
_MUCH_REDIS_SECONDS = 5

_FIX = "have both hosts set their clocks by NTP (timedatectl set-ntp true)"


def judge_store_clock(ahead_seconds: float) -> Judgement:
    """What it means that this host's clock is so many seconds ahead of the store's."""
    off = abs(ahead_seconds)
    if off < _MUCH_S3_SECONDS:
        return ok("this host's clock agrees with the store's")
    sentence = f"this host's clock is {_off(ahead_seconds)} the store's"
    if off < _MOST_S3_SECONDS:
        return warn(f"{sentence}; S3 refuses all requests from 15 minutes on", _FIX)
    return fail(f"{sentence}, and S3 refuses what is more than 15 minutes off", _FIX)


def judge_redis_clock(ahead_seconds: float) -> Judgement:
    """What it means that this host's clock is so many seconds ahead of Redis'."""
    if abs(ahead_seconds) < _MUCH_REDIS_SECONDS:
        return ok("this host's clock agrees with that of Redis")
    return warn(
        f"this host's clock is {_off(ahead_seconds)} that of Redis: expires and countdown of jobs "
        "are off by as much if the producers' clocks are right",
        _FIX,
    )


def _off(ahead: float) -> str:
    return f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'}"
