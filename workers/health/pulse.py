"""Whether the loop that takes messages still turns."""

import time
from collections.abc import Callable

# Seconds without a beat after which the loop counts as stuck, unless its broker does not answer.
STUCK_SECONDS = 90.0


class Pulse:
    """Beaten by the loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Count from now on: the start takes its time, too."""
        self._clock = clock
        self._beaten_at = clock()
        self.is_over = False
        """Whether the loop has ended, as it should when the worker leaves."""

    def beat(self) -> None:
        """Note that the loop turns, or has a reason not to."""
        self._beaten_at = self._clock()

    def trouble(self) -> str:
        """What is wrong; nothing if it turns."""
        silent = self._clock() - self._beaten_at
        if self.is_over or silent < STUCK_SECONDS:
            return ""
        return f"the loop that takes messages has not turned for {silent:.0f} s"


def turning(pulse: Pulse, broker: Callable[[], str]) -> Callable[[], str]:
    """The check that a loop turns.

    Args:
        pulse: of the loop.
        broker: what is wrong with its broker, which may hold it up for minutes: to end the worker
            would mend nothing, and cost what it renders.
    """

    def check() -> str:
        if broker():
            pulse.beat()
        return pulse.trouble()

    return check
