"""Those who watch: whatever becomes of them, no job fails of it."""

import logging
from collections.abc import Callable

from workers.observing.events import Event

logger = logging.getLogger(__name__)

Observe = Callable[[Event], None]


def unobserved(_event: Event) -> None:
    """Nobody watches."""


class Observers:
    """Tells each event to each of several. Thread-safe if they are."""

    def __init__(self, *observers: Observe) -> None:
        """Take those who watch; each must be quick, as the job waits for it."""
        self._observers = observers

    def __call__(self, event: Event) -> None:
        """Tell all of them; what one of them raises is logged."""
        for observe in self._observers:
            try:
                observe(event)
            except Exception:
                logger.exception("%s was not noted", type(event).__name__)
