"""An attempt while it runs, and what is known of it so far."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tasks.result import Progress
from workers.execution.job import Job
from workers.execution.keeper import Lease

Report = Callable[[Progress], None]

# The shares of the progress bar that come before and after the execution.
STAGED, EXECUTED = 0.05, 0.9


@dataclass
class Run:
    """One attempt on its way through the stages, and what became known of it."""

    job: Job
    lease: Lease
    report: Report
    began: float
    submitted_at: float | None = None
    executing: bool = False
    rendered: bool = False
    # The server takes no prompts, whichever.
    refused: bool = False
    # Those that have files, once it is rendered.
    nodes: tuple[str, ...] = ()

    def tell(self, stage: str, value: float, **where: Any) -> None:
        """Tell how far it is: a share of the progress bar, and the node that executes."""
        instance = self.job.instance
        self.report(Progress(stage=stage, value=round(value, 3), instance=instance, **where))
