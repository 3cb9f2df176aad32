"""The life of one job on one ComfyUI server."""

from workers.execution.executor import Executor, Report
from workers.execution.job import Job

__all__ = ["Executor", "Job", "Report"]
