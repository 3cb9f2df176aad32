"""Queue entries and message bodies, read so that none can end the worker.

Kombu lets an entry that is no message end the consumer, and with it the worker; the next worker
takes the entry then. It also reads objects with a key `__type__` as Python values, which workflows
use for values of their own.
"""

import bz2
import json
import logging
import lzma
import uuid
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

from kombu import compression
from kombu.serialization import register
from kombu.transport.virtual import Channel
from kombu.utils.json import dumps

logger = logging.getLogger(__name__)

# What reading a message of an unforeseen form raises.
MALFORMED = (AttributeError, LookupError, TypeError, ValueError, ArithmeticError, RecursionError)

_UNREADABLE = "application/x-unreadable"

# What each value in JSON has at most one of beside it; some are a hundred times as large in Python.
_MARKS = "{[,"

# Kombu's names of what Python can decompress piece by piece.
_DECOMPRESSORS: dict[str, Callable[[], Any]] = {
    "application/x-gzip": zlib.decompressobj,
    "application/x-bz2": bz2.BZ2Decompressor,
    "application/x-lzma": lzma.LZMADecompressor,
}


def bound_decompression(most_bytes: int) -> None:
    """Make this process refuse message bodies that decompress to more."""
    for name, make in _DECOMPRESSORS.items():
        encode, _ = compression.get_encoder(name)
        compression.register(encode, partial(_decompressed, make, most_bytes), name)


def _decompressed(make: Callable[[], Any], most_bytes: int, body: bytes) -> bytes:
    decompressor = make()
    content = bytes(decompressor.decompress(body, most_bytes))
    if not decompressor.eof:
        raise ValueError(
            f"the body decompresses to more than {most_bytes:,} bytes, or is cut off "
            "(WORKFLOW_MAX_BYTES, INPUT_MAX_BYTES)"
        )
    return content


def read_plain_json(most_values: int) -> None:
    """Make this process read JSON in message bodies as JSON, and refuse what has more values."""
    register("json", dumps, partial(_plain_loads, most_values), "application/json", "utf-8")


def read_entry(entry: bytes, queue: str) -> tuple[dict[str, Any], str]:
    """Read an entry of a queue.

    Returns:
        the envelope, and its text to give it back with. Of an entry that is no message it is one
        that Celery's consumer refuses.
    """
    text = entry.decode(errors="replace")
    try:
        envelope: dict[str, Any] = json.loads(text)
        _check(envelope)
    except MALFORMED as error:
        envelope = _refusable(text, queue, error)
        text = json.dumps(envelope)
    return envelope, text


def sound(envelope: Any, queue: str) -> dict[str, Any]:
    """The envelope, or in the place of one that is none another that is refused."""
    try:
        _check(envelope)
    except MALFORMED as error:
        return _refusable(repr(envelope), queue, error)
    checked: dict[str, Any] = envelope
    return checked


def _plain_loads(most_values: int, content: Any) -> Any:
    text = content if isinstance(content, str) else bytes(content).decode()
    # Counted before they are made: a small message, compressed or not, can have a great many.
    if sum(map(text.count, _MARKS)) > most_values:
        raise ValueError(f"the body has more than {most_values:,} values (WORKFLOW_MAX_BYTES)")
    return json.loads(text)


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
        # Half of a character pair, which JSON can name, is no key in Redis.
        text.encode()
    encoding = properties.get("body_encoding")
    if encoding and encoding.lower() != "utf-8":
        Channel.codecs[encoding].decode(envelope["body"])
    if not isinstance(envelope["headers"], dict):
        raise TypeError("headers are an object")


def _refusable(text: str, queue: str, error: Exception) -> dict[str, Any]:
    logger.error("an entry of the queue is no message (%s)", type(error).__name__)
    return {
        "body": text,
        "content-type": _UNREADABLE,
        "content-encoding": "utf-8",
        "headers": {},
        "properties": {
            "delivery_tag": str(uuid.uuid4()),
            "delivery_info": {"exchange": "", "routing_key": queue},
        },
    }
