"""What happens to jobs in this worker, told to whoever watches."""

from workers.observing.events import (
    AttemptBegan,
    AttemptEnded,
    Event,
    FileStored,
    JobEnded,
    JobLeft,
    JobRefused,
    JobSuppressed,
    JobTaken,
    NodeExecution,
    NodesExecuted,
    StageEnded,
    WebhookTried,
)
from workers.observing.observers import Observe, Observers, unobserved

__all__ = [
    "AttemptBegan",
    "AttemptEnded",
    "Event",
    "FileStored",
    "JobEnded",
    "JobLeft",
    "JobRefused",
    "JobSuppressed",
    "JobTaken",
    "NodeExecution",
    "NodesExecuted",
    "Observe",
    "Observers",
    "StageEnded",
    "WebhookTried",
    "unobserved",
]
