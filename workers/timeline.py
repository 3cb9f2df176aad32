"""When a job reached which point, for whoever asks where the milliseconds went."""

import logging
import time

logger = logging.getLogger(__name__)


def mark(job_id: str, point: str, at: float | None = None) -> None:
    """Log, at DEBUG, that a job has reached a point; `at` is Unix time in seconds, default now."""
    if logger.isEnabledFor(logging.DEBUG):
        logger.debug("timeline %s %s %.6f", job_id, point, at or time.time())
