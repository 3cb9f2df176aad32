"""What happens to a job in this worker: the story around its attempts, and the spine of each."""

from workers.execution.custody import Custody, JobFailed, Limits, NotNow, Order
from workers.execution.executor import Executor, Report
from workers.execution.keeper import Keeper

__all__ = ["Custody", "Executor", "JobFailed", "Keeper", "Limits", "NotNow", "Order", "Report"]
