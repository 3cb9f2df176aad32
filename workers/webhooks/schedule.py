"""What follows from a try to deliver a notice: a function of values."""

import re
from dataclasses import dataclass

from workers.web import ForbiddenError, Reply, WebError

# For so many seconds from its event on a notice is tried.
KEEP_SECONDS = 24 * 3600.0
# After each try in vain; the last one for good.
_PAUSES = (5.0, 30.0, 120.0, 600.0, 1800.0, 3600.0, 7200.0, 14400.0)
# A host that fails is asked again after as long, by whatever waits for it, but sooner than this.
_MOST_HOST_SECONDS = 600.0
# What a host that asks for time gets at most.
_MOST_ASKED_SECONDS = 3600.0
_GONE = 410


@dataclass(frozen=True)
class Delivered:
    """The receiver has it."""


@dataclass(frozen=True)
class Postponed:
    """It is to be tried again.

    Attributes:
        error: why.
        seconds: until then.
        host_seconds: until its host is asked for anything; None: the host itself is well.
    """

    error: str
    seconds: float
    host_seconds: float | None


@dataclass(frozen=True)
class GivenUp:
    """It is not tried again; fields as for `Postponed`."""

    error: str
    host_seconds: float | None = None


Decision = Delivered | Postponed | GivenUp


def is_too_late(age: float, tries: int, failures: int) -> bool:
    """Whether a notice of this age, in seconds, is not even tried again.

    One that nobody has tried yet is, unless its host has failed all the time.
    """
    return age > KEEP_SECONDS and (tries > 0 or failures > 0)


def after_try(
    answer: Reply | WebError, *, age: float, tries: int, failures: int, jitter: float
) -> Decision:
    """What follows from the answer of a receiver, or from none.

    Args:
        answer: what came.
        age: seconds since the event.
        tries: in vain before this one.
        failures: of the host in a row before this one.
        jitter: from 0 to 1: what waits for the same host is not to come at the same moment.
    """
    if isinstance(answer, ForbiddenError):
        return GivenUp(f"the URL {answer} (WEBHOOK_ALLOW_HOSTS)")
    if isinstance(answer, Reply):
        if 200 <= answer.status < 300:
            return Delivered()
        if answer.status == _GONE:
            return GivenUp("the receiver answered 410: it wants nothing any more")
        error = f"the receiver answered {answer.status}"
        is_ill = answer.status >= 500 or answer.status == 429
        asked = _asked_seconds(answer.retry_after)
    else:
        error, is_ill, asked = f"the URL {answer}", True, 0.0
    pause = max(_pause(tries) * (0.8 + 0.4 * jitter), asked)
    host_seconds = max(min(_pause(failures), _MOST_HOST_SECONDS), asked) if is_ill else None
    if age + pause > KEEP_SECONDS:
        return GivenUp(error, host_seconds)
    return Postponed(error, pause, host_seconds)


def _pause(tries: int) -> float:
    return _PAUSES[min(tries, len(_PAUSES) - 1)]


def _asked_seconds(retry_after: str) -> float:
    # As a date it says little more, and needs a clock that is right.
    found = re.fullmatch("[0-9]{1,9}", retry_after.strip())
    return min(float(found.group()), _MOST_ASKED_SECONDS) if found else 0.0
