"""The typed way to enqueue a job, for producers who install comfyfleet."""

import time
import uuid
from collections.abc import Mapping
from typing import Any

from celery import Celery
from celery.result import AsyncResult

from settings.celery import QUEUE
from tasks.app import TASK_NAME, app
from tasks.request import parse_request
from tasks.workflow import check_workflow, with_params

ENQUEUED_AT = "enqueued_at"


def enqueue(
    workflow: Mapping[str, Any],
    *,
    params: Mapping[str, Any] | None = None,
    inputs: Mapping[str, str] | None = None,
    output: Mapping[str, Any] | None = None,
    timeout_seconds: float | None = None,
    metadata: Mapping[str, str] | None = None,
    job_id: str | None = None,
    celery: Celery = app,
    **options: Any,
) -> AsyncResult[Any]:
    """Put a job on the queue and return Celery's handle of it.

    Args:
        workflow: API format, node id to `class_type` and `inputs`.
        params: node inputs to set, `{"6.text": "a cat"}`.
        inputs: files to place before the run: name in the workflow to `s3://` or `data:` URL.
        output: `prefix`, `presign_seconds`, `include_temp`.
        timeout_seconds: seconds from an attempt's start after which it is stopped, if it still
            executes, and the job fails.
        metadata: strings that come back with the result.
        job_id: Celery's task id; the same id twice is one job. Default: a new one.
        celery: the app to send with; default: configured from the environment.
        options: Celery's own, passed to `send_task`: priority, expires, countdown, eta, link, ...

    Raises:
        InvalidRequestError: an argument is wrong.
        InvalidWorkflowError: the workflow is no workflow, or a param names no input of it.
        kombu.exceptions.OperationalError: the broker cannot be reached.
    """
    given = {
        "workflow": workflow,
        "params": params,
        "inputs": inputs,
        "output": output,
        "timeout_seconds": timeout_seconds,
        "metadata": metadata,
    }
    arguments = {name: _plain(value) for name, value in given.items() if value is not None}
    request = parse_request((), arguments)
    check_workflow(request.workflow)
    with_params(request.workflow, request.params)
    headers = {ENQUEUED_AT: time.time(), **options.pop("headers", {})}
    return celery.send_task(
        TASK_NAME,
        kwargs=arguments,
        queue=options.pop("queue", QUEUE),
        task_id=job_id or str(uuid.uuid4()),
        headers=headers,
        **options,
    )


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value
