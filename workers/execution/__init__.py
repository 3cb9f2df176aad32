"""What happens to a job in this worker: the story around its attempts, and the spine of each."""

from workers.execution.custody import Custody, Limits, NotNow, Order
from workers.execution.executor import Executor, Report
from workers.execution.keeper import Keeper
from workers.execution.takeover import Takeover

__all__ = ["Custody", "Executor", "Keeper", "Limits", "NotNow", "Order", "Report", "Takeover"]
