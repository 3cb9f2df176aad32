"""What happens to jobs in this worker, told to whoever watches."""

from workers.observing.events import (
    AttemptBegan,
    AttemptEnded,
    Event,
    FileStored,
    JobEnded,
    JobSuppressed,
    JobTaken,
    StageEnded,
)
from workers.observing.observers import Observe, Observers, unobserved

__all__ = [
    "AttemptBegan",
    "AttemptEnded",
    "Event",
    "FileStored",
    "JobEnded",
    "JobSuppressed",
    "JobTaken",
    "Observe",
    "Observers",
    "StageEnded",
    "unobserved",
]
