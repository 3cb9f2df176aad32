"""What a producer sees: `enqueue`, the request and result models, the error tree.

Importing this opens no connection, and pulls in no worker code and no boto3.
"""

from tasks.app import TASK_NAME, app
from tasks.enqueue import enqueue
from tasks.errors import CancelledError, JobError, PermanentError, TransientError
from tasks.request import JobRequest, OutputOptions
from tasks.result import JobResult, Output, Progress, Thumbnail

__all__ = [
    "TASK_NAME",
    "CancelledError",
    "JobError",
    "JobRequest",
    "JobResult",
    "Output",
    "OutputOptions",
    "PermanentError",
    "Progress",
    "Thumbnail",
    "TransientError",
    "app",
    "enqueue",
]
