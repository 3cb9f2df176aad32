"""A job's workflow as a server is sent it, but for the files that are placed there."""

import random
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from tasks.request import JobRequest
from tasks.workflow import check_workflow, with_params
from workers.conversion.convert import convert
from workers.conversion.export import is_export


def prepare(
    request: JobRequest, job_id: str, enqueued_at: float, object_info: Mapping[str, Any]
) -> dict[str, Any]:
    """The workflow in API format, with params set.

    Raises:
        InvalidWorkflowError: a server with these node classes cannot run it; names the node.
    """
    workflow = request.workflow
    if is_export(workflow):
        now = datetime.fromtimestamp(enqueued_at, UTC)
        choose = random.Random(job_id).choice  # noqa: S311  # no secret
        workflow = dict(convert(workflow, object_info, choose=choose, now=now))
    check_workflow(workflow)
    return with_params(workflow, request.params)
