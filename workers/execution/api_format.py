"""A job's workflow in API format, whichever form the job brings."""

import random
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from tasks.workflow import Workflow, check_size, check_workflow
from tasks.workflow_form import is_export
from workers.conversion.convert import convert
from workers.execution.job import Job


def in_api_format(
    job: Job, object_info: Callable[[], Mapping[str, Any]], max_bytes: int
) -> Workflow:
    """The job's workflow, checked; an export of the UI as the frontend would send it.

    What the frontend leaves to chance and the clock is the same for each attempt: choices in
    prompts are drawn by the job's id, dates in file names are of when it was enqueued, in UTC.

    Args:
        job: has the workflow.
        object_info: what the server says of its node classes; asked for an export only.
        max_bytes: size of an export as JSON above which it is refused.

    Raises:
        InvalidWorkflowError: it is no workflow, too large an export, or one with a node that the
            server does not know.
        JobError: the server does not say what nodes it has.
    """
    given = job.request.workflow
    check_workflow(given)
    if not is_export(given):
        return given
    check_size(given, max_bytes)
    workflow = convert(
        given,
        object_info(),
        choose=random.Random(job.id).choice,  # noqa: S311  # no secret
        now=datetime.fromtimestamp(job.enqueued_at, UTC),
    )
    check_workflow(workflow)
    return workflow
