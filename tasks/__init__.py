"""What a producer sees: `enqueue`, `enqueue_batch`, the request and result models, the error tree.

Importing this opens no connection, and pulls in no worker code and no boto3.
"""

from tasks.app import TASK_NAME, app
from tasks.batch import enqueue_batch, sweep
from tasks.enqueue import enqueue
from tasks.errors import CancelledError, JobError, PermanentError, TransientError
from tasks.handle import Batch, BatchProgress
from tasks.request import JobRequest, OutputOptions, WebhookOptions
from tasks.result import JobResult, Output, Progress, Thumbnail

__all__ = [
    "TASK_NAME",
    "Batch",
    "BatchProgress",
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
    "WebhookOptions",
    "app",
    "enqueue",
    "enqueue_batch",
    "sweep",
]
