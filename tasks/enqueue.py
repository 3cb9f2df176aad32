"""The typed way to enqueue a job, for producers who install comfyfleet."""

import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from celery import Celery
from celery.result import AsyncResult
from kombu.exceptions import OperationalError
from kombu.utils.json import dumps

from settings.celery import QUEUE
from settings.rabbitmq import QUEUES, level_of
from tasks.app import TASK_NAME, app
from tasks.errors import BrokerFullError, InvalidRequestError
from tasks.params import check_params
from tasks.rabbitmq import CONFIRM_SECONDS, RABBITMQ, is_other_queue, is_refusal
from tasks.request import JobRequest, did_you_mean, is_encodable, parse_request, shown
from tasks.tracing import trace_headers
from tasks.workflow import check_workflow
from tasks.workflow_file import is_data_url, read_data_url, read_workflow

ENQUEUED_AT = "enqueued_at"

# Arguments of so many bytes as JSON travel compressed: Redis holds all that wait in memory.
_COMPRESS_BYTES = 2048
_COMPRESSION = "zlib"

Priority = Literal["urgent", "normal", "batch"]

Given = Mapping[str, Any] | bytes | str | Path
"""A workflow, or a file that has one: its path, its content or a `data:` URL."""

# Kombu's Redis transport takes the lowest first, and tells apart the steps 0, 3, 6 and 9.
_ON_REDIS = {"urgent": 0, "normal": 3, "batch": 9}
# RabbitMQ takes the highest first.
_ELSEWHERE = {"urgent": 9, "normal": 5, "batch": 1}


def enqueue(
    workflow: Given,
    *,
    params: Mapping[str, Any] | None = None,
    inputs: Mapping[str, str] | None = None,
    output: Mapping[str, Any] | None = None,
    timeout_seconds: float | None = None,
    metadata: Mapping[str, str] | None = None,
    webhook: Mapping[str, Any] | None = None,
    job_id: str | None = None,
    priority: Priority | int | None = None,
    celery: Celery = app,
    **options: Any,
) -> AsyncResult[Any]:
    """Put a job on the queue and return Celery's handle of it.

    Args:
        workflow: API format, node id to `class_type` and `inputs`, or an export of ComfyUI's UI;
            or a file that has either: JSON, or a PNG or WebP in which ComfyUI has embedded it, as
            its path, its content or a `data:` URL.
        params: node inputs to set, `{"6.text": "a cat"}`.
        inputs: files to place before the run: name in the workflow to `https://`, `s3://` or
            `data:` URL.
        output: fields of `OutputOptions`, such as `prefix`.
        timeout_seconds: seconds that its prompt may execute before it is stopped and the job fails.
        metadata: strings that come back with the result.
        webhook: who is told of the job's end: `url`, and `events` if not all ends.
        job_id: Celery's task id; the same id twice is one job. Default: a new one.
        priority: a word that means the same on every broker; or the broker's own number, of which
            Redis takes the lowest first, RabbitMQ the highest. Default: on Redis Celery's 0,
            which is as urgent as "urgent"; on RabbitMQ "normal". There each of the words has a
            queue of its own; 7 and more stand for "urgent", 3 and less for "batch".
        celery: the app to send with; default: configured from the environment.
        options: Celery's own, passed to `send_task`: expires, countdown, eta, link, ... Unless
            `compression` is among them, all but the smallest jobs travel compressed by zlib.

    Raises:
        InvalidRequestError: an argument is wrong.
        InvalidWorkflowError: the workflow is no workflow, or a param names no input of it; params
            of an export are for the worker to check, with its server's nodes.
        OSError: the workflow's file cannot be read.
        BrokerFullError: Redis has no memory left for the job, or RabbitMQ refuses it.
        kombu.exceptions.OperationalError: the broker cannot be reached.
        RuntimeError: Celery's Redis result backend cannot be reached.
    """
    arguments = checked(
        {
            "workflow": workflow,
            "params": params,
            "inputs": inputs,
            "output": output,
            "timeout_seconds": timeout_seconds,
            "metadata": metadata,
            "webhook": webhook,
        }
    )
    _check_id(job_id)
    message = message_options(priority, celery, options)
    return send(arguments, job_id or str(uuid.uuid4()), message, celery)


def _check_id(job_id: Any) -> None:
    if job_id is None:
        return
    if not (isinstance(job_id, str) and job_id and is_encodable(job_id)):
        raise InvalidRequestError(f"job_id: found {shown(job_id)}, expected a string")
    # No signature is believed of such a one.
    if "\n" in job_id:
        raise InvalidRequestError(f"job_id: found {shown(job_id)}, expected one without line break")


def checked(given: Mapping[str, Any]) -> dict[str, Any]:
    """The task's arguments as they are sent, without those that are None.

    A workflow that is a file is read.

    Raises:
        InvalidRequestError: an argument is wrong.
        InvalidWorkflowError: the workflow is no workflow, or a param names no input of it.
        OSError: the workflow's file cannot be read.
    """
    arguments, request = parsed({**given, "workflow": _read(given["workflow"])})
    check_workflow(request.workflow)
    check_params(request.workflow, request.params)
    return arguments


def parsed(given: Mapping[str, Any]) -> tuple[dict[str, Any], JobRequest]:
    """The arguments as they are sent, and as the request that they are.

    Raises:
        InvalidRequestError: an argument is wrong.
    """
    arguments = {name: _plain(value) for name, value in given.items() if value is not None}
    try:
        return arguments, parse_request((), arguments)
    except ValueError as error:
        # Such as of a number with more digits than can be shown.
        raise InvalidRequestError(f"an argument cannot be read: {error}") from error


def message_options(
    priority: Priority | int | None, celery: Celery, options: Mapping[str, Any]
) -> dict[str, Any]:
    """What `send_task` is told beside the arguments, the same for all jobs of a batch.

    Raises:
        InvalidRequestError: the priority is none.
    """
    headers = {ENQUEUED_AT: time.time(), **trace_headers(), **options.get("headers", {})}
    told = {"queue": QUEUE, **options, "headers": headers}
    # Neither making a connection nor asking for its transport opens it.
    broker = celery.connection_for_write().get_transport_cls().driver_type
    on_rabbitmq: dict[str, Any] = {}
    if broker == RABBITMQ:
        on_rabbitmq["confirm_timeout"] = CONFIRM_SECONDS
    if priority is None:
        return {**on_rabbitmq, **told}
    number = _broker_priority(priority, _ON_REDIS if broker == "redis" else _ELSEWHERE)
    if broker == RABBITMQ:
        on_rabbitmq["queue"] = QUEUES[level_of(number)]
    return {**told, **on_rabbitmq, **options, "headers": headers, "priority": number}


def send(
    arguments: Mapping[str, Any], job_id: str, options: Mapping[str, Any], celery: Celery
) -> AsyncResult[Any]:
    """Put a job on the queue whose arguments are checked.

    Raises:
        InvalidRequestError: an argument is no JSON.
        BrokerFullError: Redis has no memory left for the job, or RabbitMQ refuses it.
    """
    is_small = json_size(arguments) < _COMPRESS_BYTES
    compression = {} if is_small else {"compression": _COMPRESSION}

    def send_task(**more: Any) -> AsyncResult[Any]:
        told = {**compression, **options, **more}
        return celery.send_task(TASK_NAME, kwargs=dict(arguments), task_id=job_id, **told)

    try:
        return send_task()
    except OperationalError as error:
        if _is_out_of_memory(error):
            raise BrokerFullError(
                "Redis is out of memory (maxmemory is reached and its policy is noeviction): "
                "the job was not enqueued; give it more memory, or enqueue again later"
            ) from error
        raise
    except Exception as error:
        if is_other_queue(error):
            # It is there, only not as this app would declare it.
            return send_task(declare=[])
        if is_refusal(error):
            raise BrokerFullError(
                "RabbitMQ refuses the job (a queue has its greatest length, or has no majority of "
                "its nodes): it was not enqueued; enqueue again later"
            ) from error
        raise


def _read(workflow: Given) -> Any:
    match workflow:
        case str() if is_data_url(workflow):
            return read_data_url(workflow)
        case str():
            return read_workflow(Path(workflow))
        case bytes() | Path():
            return read_workflow(workflow)
    return workflow


def json_size(arguments: Mapping[str, Any]) -> int:
    """Bytes of arguments as JSON.

    Raises:
        InvalidRequestError: they are no JSON.
    """
    try:
        return len(dumps(arguments))
    except (TypeError, ValueError) as error:
        raise InvalidRequestError(f"an argument is no JSON: {error}") from error


def _broker_priority(priority: Priority | int, words: Mapping[str, int]) -> int:
    if isinstance(priority, int):
        return priority
    if not isinstance(priority, str) or priority not in words:
        raise InvalidRequestError(
            f"priority: found {shown(priority)}, expected 'urgent', 'normal', 'batch' or a number"
            f"{did_you_mean(str(priority), words)}"
        )
    return words[priority]


def _is_out_of_memory(error: OperationalError) -> bool:
    # Producers on other brokers never load the Redis client.
    from redis.exceptions import OutOfMemoryError  # noqa: PLC0415

    return isinstance(error.__cause__, OutOfMemoryError)


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value
