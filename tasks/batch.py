"""Many jobs of one workflow: a row of params each."""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any

from celery import Celery
from celery.backends.base import DisabledBackend

from tasks.app import app
from tasks.enqueue import Given, Priority, checked, json_size, message_options, parsed, send
from tasks.errors import InvalidRequestError, InvalidWorkflowError
from tasks.handle import Batch
from tasks.params import check_params
from tasks.request import is_encodable, shown

_JOB_IDS = uuid.UUID("0c7d5b0e-6f0b-5a51-9a9e-3a1f6f1f0f57")


def job_id_of(batch_id: str, row: int) -> str:
    """The id of a row's job, counted from 1: the same for the same batch and row."""
    return str(uuid.uuid5(_JOB_IDS, f"{batch_id}:{row}"))


def sweep(values: Mapping[str, Iterable[Any]]) -> list[dict[str, Any]]:
    """Every combination of some inputs' values: `{"3.cfg": [5, 7], "3.seed": [1, 2]}` has four.

    The last input changes first, as the digits of a number do.

    Raises:
        InvalidRequestError: an input's values are no list.
    """
    for address, given in values.items():
        if isinstance(given, str | bytes) or not isinstance(given, Iterable):
            raise InvalidRequestError(f"{shown(address)}: found {shown(given)}, expected a list")
    return [dict(zip(values, row, strict=True)) for row in product(*values.values())]


def enqueue_batch(
    workflow: Given,
    rows: Iterable[Mapping[str, Any]],
    *,
    inputs: Mapping[str, str] | None = None,
    output: Mapping[str, Any] | None = None,
    timeout_seconds: float | None = None,
    metadata: Mapping[str, str] | None = None,
    webhook: Mapping[str, Any] | None = None,
    batch_id: str | None = None,
    priority: Priority | int | None = None,
    celery: Celery = app,
    **options: Any,
) -> Batch:
    """Put a job on the queue for each row of params, and return one handle of them all.

    Nothing is enqueued before every row has been checked. The jobs are a Celery group; to the
    metadata of each are added `batch`, the batch's id, and `row`, from 1, unless they are given.

    Args:
        workflow: as for `enqueue`, as all that is not said here.
        rows: the `params` of each job.
        inputs: the same for all jobs.
        output: the same for all jobs.
        timeout_seconds: of each job.
        metadata: the same for all jobs, beside `batch` and `row`.
        webhook: the same for all jobs, each of which tells of itself.
        batch_id: the same id twice is one batch, as its jobs have the same ids; so a batch of which
            only a part could be enqueued is enqueued again. Default: a new one.
        priority: of all jobs.
        celery: the app to send with.
        options: Celery's own, passed to `send_task` for each job.

    Raises:
        InvalidRequestError: an argument is wrong, or there is no row.
        InvalidWorkflowError: the workflow is no workflow, or a row does not fit it.
        OSError: the workflow's file cannot be read.
        BrokerFullError: Redis has no memory left for all of them.
        kombu.exceptions.OperationalError: the broker cannot be reached.
    """
    if batch_id is not None and not (
        isinstance(batch_id, str) and batch_id and is_encodable(batch_id)
    ):
        raise InvalidRequestError(f"batch_id: found {shown(batch_id)}, expected a string")
    batch_id = batch_id or str(uuid.uuid4())
    shared = checked(
        {
            "workflow": workflow,
            "inputs": inputs,
            "output": output,
            "timeout_seconds": timeout_seconds,
            "metadata": metadata,
            "webhook": webhook,
        }
    )
    arguments = [
        _row(shared, row, batch_id, number) for number, row in enumerate(list(rows), start=1)
    ]
    if not arguments:
        raise InvalidRequestError("the batch has no row")
    batch = Batch(batch_id, [job_id_of(batch_id, n + 1) for n in range(len(arguments))], celery)
    # Before there is anything that could get lost. Who asks for no results needs no handle.
    if not isinstance(celery.backend, DisabledBackend):
        batch.save()
    _send_all(batch, arguments, message_options(priority, celery, options), celery)
    return batch


def _row(
    shared: Mapping[str, Any], row: Mapping[str, Any], batch_id: str, number: int
) -> dict[str, Any]:
    """The arguments of a row's job."""
    place = {"batch": batch_id, "row": str(number)}
    metadata = {**place, **shared.get("metadata", {})}
    try:
        arguments, request = parsed({**shared, "params": row, "metadata": metadata})
        check_params(request.workflow, request.params)
        json_size(request.params)
    except (InvalidRequestError, InvalidWorkflowError) as error:
        raise type(error)(f"row {number}: {error.message}") from None
    return arguments


def _send_all(
    batch: Batch, arguments: Sequence[Mapping[str, Any]], options: Mapping[str, Any], celery: Celery
) -> None:
    sent = 0
    try:
        # One connection for all.
        with celery.producer_pool.acquire(block=True) as producer:
            for job_id, one in zip(batch.job_ids, arguments, strict=True):
                send(one, job_id, {**options, "producer": producer, "group_id": batch.id}, celery)
                sent += 1
    except BaseException as error:
        error.add_note(
            f"{sent} of the {len(arguments)} jobs of batch {batch.id} were enqueued; "
            "enqueue it again with the same batch_id to have the others enqueued, too"
        )
        raise
