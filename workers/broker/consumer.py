"""Celery's consumer, request and envelope reader, made safe against messages that are none.

Kombu and Celery let some malformed messages end the consumer, and with it the worker; the next
worker takes the message then. Here each becomes a failed task if it says which, and a line in
the log if it does not.
"""

import logging
import time
import uuid
from collections.abc import Callable
from typing import Any

from celery.exceptions import InvalidTaskError
from celery.worker.consumer import Consumer as CeleryConsumer
from celery.worker.request import Request as CeleryRequest
from kombu.transport import redis as redis_transport
from kombu.transport.virtual import Channel
from kombu.utils.json import loads

from tasks.errors import InvalidRequestError

logger = logging.getLogger(__name__)

# The message header in which a request keeps when it reached this worker (Unix time, seconds).
RECEIVED_AT = "received_at"

_UNREADABLE = "application/x-unreadable"
_UNGUARDED = "_comfyfleet_unguarded_deliver"


# What reading a message of an unforeseen form raises.
_MALFORMED = (AttributeError, LookupError, TypeError, ValueError)


class Request(CeleryRequest):  # type: ignore[misc]  # celery has no types for it
    """Celery's request of a job, which also knows when the message came."""

    def __init__(self, message: Any, **options: Any) -> None:
        """Read a message.

        Raises:
            InvalidTaskError: a field of it is of the wrong type.
        """
        super().__init__(message, **options)
        for name, kind in (("id", str), ("retries", int), ("args", list), ("kwargs", dict)):
            value = self._request_dict.get(name)
            if value is not None and not isinstance(value, kind):
                raise InvalidTaskError(f"{name} is {value!r:.80}, expected {kind.__name__}")
        self._request_dict[RECEIVED_AT] = time.time()


class Consumer(CeleryConsumer):  # type: ignore[misc]  # celery has no types for it
    """Celery's consumer, which also records the failure of messages that it drops."""

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], None]:
        """Celery's hook: the function that takes each message."""
        handle = super().create_task_handler(*args, **kwargs)

        def on_task_received(message: Any) -> None:
            try:
                handle(message)
            except _MALFORMED as error:
                self.on_invalid_task(None, message, InvalidTaskError(repr(error)))

        return on_task_received

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Celery's hook for a body that is not what its content type says."""
        self._fail(message, exc)
        super().on_decode_error(message, exc)

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Celery's hook for a message that is none of a task."""
        self._fail(message, exc)
        super().on_invalid_task(body, message, exc)

    def _fail(self, message: Any, exc: Exception) -> None:
        job_id = (message.headers or {}).get("id")
        if isinstance(job_id, str) and job_id:
            error = InvalidRequestError(f"the message cannot be read as a task: {exc}")
            self.app.backend.mark_as_failure(job_id, error)


def guard_envelopes() -> None:
    """Make kombu's Redis transport survive queue entries that are no messages.

    Such an entry becomes a message that Celery's consumer refuses. The transport reads entries
    with the function that its module calls `loads` and hands them to `_deliver`; it offers no
    other place to come between.
    """
    transport = redis_transport.Transport
    if not hasattr(transport, _UNGUARDED):
        setattr(transport, _UNGUARDED, transport._deliver)  # noqa: SLF001
        transport._deliver = _deliver  # noqa: SLF001
        redis_transport.loads = _loads


def _loads(text: str) -> Any:
    try:
        return loads(text)
    except (ValueError, RecursionError) as error:
        return _refusable(text, error)


def _deliver(transport: Any, envelope: Any, queue: str) -> None:
    try:
        _check(envelope)
    except _MALFORMED as error:
        envelope = _refusable(repr(envelope), error)
    getattr(transport, _UNGUARDED)(envelope, queue)


def _check(envelope: Any) -> None:
    # All that kombu reads outside of its own error handling.
    properties = envelope["properties"]
    properties["delivery_tag"], properties["delivery_info"]["exchange"]
    properties["delivery_info"]["routing_key"]
    encoding = properties.get("body_encoding")
    if encoding and encoding.lower() != "utf-8":
        Channel.codecs[encoding].decode(envelope["body"])
    if not isinstance(envelope["headers"], dict):
        raise TypeError("headers are an object")


def _refusable(text: str, error: Exception) -> dict[str, Any]:
    logger.error("an entry of the queue is no message (%r): %.200r", error, text)
    return {
        "body": text,
        "content-type": _UNREADABLE,
        "content-encoding": "utf-8",
        "headers": {},
        "properties": {
            "delivery_tag": str(uuid.uuid4()),
            "delivery_info": {"exchange": "", "routing_key": ""},
        },
    }
