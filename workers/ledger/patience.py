"""Waiting for a Redis that does not answer."""

import logging
import time
from collections.abc import Callable

from tasks.errors import BrokerFullError, BrokerUnavailableError

logger = logging.getLogger(__name__)

# Seconds between questions to a Redis that does not answer.
REDIS_PAUSE = 1.0


def until_reached(action: Callable[[], bool]) -> bool:
    """Do what must not be left out, as soon as Redis lets it."""
    warned = False
    while True:
        try:
            return action()
        except (BrokerUnavailableError, BrokerFullError) as error:
            if not warned:
                logger.warning("what became of it cannot be recorded yet: %s", error)
            warned = True
            time.sleep(REDIS_PAUSE)
