"""A job's workflow as a server is sent it, but for the files that are placed there."""

import random
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from tasks.errors import InvalidWorkflowError
from tasks.request import JobRequest
from tasks.workflow import Workflow, check_size, check_workflow
from tasks.workflow_form import is_export
from workers.conversion.convert import convert
from workers.execution.node_policy import NodePolicy
from workers.nodes.params import apply_params, check_values

_ALL = NodePolicy()


def is_sound(workflow: Workflow, max_bytes: int) -> bool:
    """Whether a workflow is one, and of a size that is allowed, whatever the server."""
    try:
        check_workflow(workflow)
        check_size(workflow, max_bytes)
    except InvalidWorkflowError:
        return False
    return True


def prepare(
    request: JobRequest,
    job_id: str,
    enqueued_at: float,
    object_info: Callable[[], Mapping[str, Any]],
    *,
    max_bytes: int,
    nodes_allowed: NodePolicy = _ALL,
    is_submitted: bool = False,
) -> dict[str, Any]:
    """The workflow in API format, checked and with params set.

    What the UI leaves to chance and the clock is the same for each attempt: choices in prompts and
    random seeds are drawn by the job's id, dates in file names are of when it was enqueued, in UTC.

    Args:
        request: the job's.
        job_id: of the job.
        enqueued_at: Unix time.
        object_info: what a server says of its node classes; asked only if that is needed.
        max_bytes: size of a workflow as JSON above which it is refused.
        nodes_allowed: which classes it may use.
        is_submitted: whether a server has taken it already, so that neither its classes nor its
            values need a check.

    Raises:
        InvalidWorkflowError: a server with these node classes cannot run it; names the node.
        NodeForbiddenError: it uses a class that is not allowed.
        JobError: the server does not say what nodes it has.
    """
    given = request.workflow
    check_workflow(given)
    check_size(given, max_bytes)
    workflow: Workflow = given
    if is_export(given):
        workflow = _converted(given, job_id, enqueued_at, object_info())
        check_size(workflow, max_bytes)
    if not is_submitted:
        nodes_allowed.check(workflow)
    if not request.params:
        return dict(workflow)
    nodes = object_info()
    changed = apply_params(workflow, request.params, nodes, job_id)
    check_size(changed, max_bytes)
    if not is_submitted:
        check_values(workflow, request.params, nodes)
    return changed


def _converted(
    export: Workflow, job_id: str, enqueued_at: float, object_info: Mapping[str, Any]
) -> Workflow:
    workflow = convert(
        export,
        object_info,
        choose=random.Random(job_id).choice,  # noqa: S311  # no secret
        now=datetime.fromtimestamp(enqueued_at, UTC),
    )
    check_workflow(workflow)
    return workflow
