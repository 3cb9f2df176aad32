"""How much work a worker takes ahead of what its server executes: enough, and no more.

What a worker holds can be neither overtaken nor picked up by a worker that has nothing to do.
"""

import math
from enum import Enum

# The time for which what waits in the server's own queue should keep the GPU busy: long enough to
# fetch the next job from the broker.
COVER_SECONDS = 0.25
MOST_AHEAD = 3


class Appetite(Enum):
    """Whether a worker takes one more job."""

    NONE = "none"
    AHEAD = "ahead"
    """If no other worker has nothing to do."""
    HUNGER = "hunger"
    """In any case: its server has nothing to do."""


def appetite(unrendered: int, *, ahead: int, polite: bool = False) -> Appetite:
    """What a worker wants.

    Args:
        unrendered: the jobs that it has taken and with which the GPU has not done yet.
        ahead: how many of them may wait.
        polite: whether it has just given a job away, and leaves the next one to others.
    """
    if unrendered > ahead:
        return Appetite.NONE
    return Appetite.AHEAD if unrendered > 0 or polite else Appetite.HUNGER


def jobs_ahead(seconds: float | None) -> int:
    """How many jobs are to wait in the server's queue.

    Args:
        seconds: that a job executes here, as a rule; None if there was none yet.
    """
    if seconds is None or seconds <= 0:
        return 1
    return min(MOST_AHEAD, max(1, math.ceil(COVER_SECONDS / seconds)))
