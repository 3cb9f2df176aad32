"""Queue entries and message bodies as kombu's Redis transport reads them, made safe.

Kombu lets an entry that is no message end the consumer, and with it the worker; the next worker
takes the entry then. It also reads objects with a key `__type__` as Python values, which workflows
use for values of their own.
"""

import json
import logging
import uuid
from typing import Any

from kombu.serialization import register
from kombu.transport import redis as redis_transport
from kombu.transport.virtual import Channel
from kombu.utils.json import dumps

logger = logging.getLogger(__name__)

# What reading a message of an unforeseen form raises.
MALFORMED = (AttributeError, LookupError, TypeError, ValueError, ArithmeticError, RecursionError)

_UNREADABLE = "application/x-unreadable"
_UNGUARDED = "_comfyfleet_unguarded_deliver"


def guard_envelopes() -> None:
    """Make this process read JSON as JSON, and survive queue entries that are no messages.

    Such an entry becomes a message that Celery's consumer refuses. The transport reads entries
    with the function that its module calls `loads` and hands them to `_deliver`; it offers no
    other place to come between.
    """
    register("json", dumps, _plain_loads, "application/json", "utf-8")
    transport = redis_transport.Transport
    if not hasattr(transport, _UNGUARDED):
        setattr(transport, _UNGUARDED, transport._deliver)  # noqa: SLF001
        transport._deliver = _deliver  # noqa: SLF001
        redis_transport.loads = _loads


def _plain_loads(content: Any) -> Any:
    return json.loads(bytes(content) if isinstance(content, memoryview) else content)


def _loads(text: str) -> Any:
    try:
        return json.loads(text)
    except MALFORMED as error:
        return _refusable(text, error)


def _deliver(transport: Any, envelope: Any, queue: str) -> None:
    try:
        _check(envelope)
    except MALFORMED as error:
        envelope = _refusable(repr(envelope), error)
    getattr(transport, _UNGUARDED)(envelope, queue)


def _check(envelope: Any) -> None:
    # All that kombu reads outside of its own error handling.
    properties = envelope["properties"]
    delivery_info = properties["delivery_info"]
    for text in (
        properties["delivery_tag"],
        delivery_info["exchange"],
        delivery_info["routing_key"],
    ):
        if not isinstance(text, str):
            raise TypeError(f"{text!r:.80} is no string")
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
