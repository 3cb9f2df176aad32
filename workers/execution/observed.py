"""The events of which the spine tells, made of what it has in hand."""

import time

from tasks.workflow import Workflow
from workers.comfyui.progress import PromptProgress
from workers.execution.job import Job
from workers.execution.order import Order
from workers.ledger import Claimed
from workers.logs.context import note
from workers.observing import AttemptBegan, JobTaken, NodeExecution, NodesExecuted
from workers.routing.lanes import Here


def taken(order: Order, claim: Claimed) -> JobTaken:
    """A job is ours by this claim."""
    return JobTaken(
        order.job_id,
        enqueued_at=order.enqueued_at,
        taken_at=time.time(),
        is_new=claim.is_new,
        redelivered=order.redelivered,
        owner_died=claim.owner_died,
        headers=order.headers,
    )


def attempt_began(job: Job, here: Here) -> AttemptBegan:
    """An attempt begins on the server of which this is known."""
    return AttemptBegan(
        job.id,
        number=job.number,
        prompt_id=job.prompt_id,
        instance=job.instance,
        start=job.start.value,
        models=("cold" if here.cold else "warm") if here.models else "unknown",
    )


def nodes_executed(job: Job, workflow: Workflow, progress: PromptProgress) -> NodesExecuted:
    """Which nodes have executed, as far as it was heard."""
    # From the clock on which they were heard of to the one that all have.
    offset = time.time() - time.monotonic()
    nodes = tuple(
        NodeExecution(
            node_id,
            class_type=workflow.get(node_id, {}).get("class_type"),
            began_at=began + offset,
            seconds=progress.node_seconds[node_id],
        )
        for node_id, began in progress.node_began.items()
    )
    return NodesExecuted(job.id, nodes)


def note_attempt(job: Job) -> None:
    """Have the lines that this thread logs say at which attempt they are."""
    note(prompt_id=job.prompt_id, instance=job.instance, attempt=job.number)
