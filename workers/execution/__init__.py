"""What happens to a job in this worker: the story around its attempts, and the spine of each."""

from workers.execution.attempts import Attempts
from workers.execution.custody import Custody
from workers.execution.endings import Endings
from workers.execution.executor import Executor
from workers.execution.handover import Handover
from workers.execution.keeper import Keeper
from workers.execution.order import Limits, NotNow, Order
from workers.execution.placement import Placement
from workers.execution.retries import Retries
from workers.execution.run import Report
from workers.execution.takeover import Takeover

__all__ = [
    "Attempts",
    "Custody",
    "Endings",
    "Executor",
    "Handover",
    "Keeper",
    "Limits",
    "NotNow",
    "Order",
    "Placement",
    "Report",
    "Retries",
    "Takeover",
]
