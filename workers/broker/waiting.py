"""Jobs that nobody has begun: a message in the broker is all that there is of them."""

import json
from collections.abc import Iterator
from contextlib import suppress
from itertools import product
from typing import Any

import redis
from kombu.transport.redis import PRIORITY_STEPS, Channel

from settings.celery import QUEUE, UNACKED
from workers.broker.scripts import LANES, lane_name
from workers.ledger.connection import connect
from workers.ledger.seam import translated

# Messages fetched at once: each may be megabytes.
_CHUNK = 20


def is_waiting(redis_url: str, job_id: str) -> bool:
    """Whether the broker has a message of the job, in the queue or given to a worker.

    Raises:
        BrokerUnavailableError: Redis is away.
    """
    with translated(), connect(redis_url) as client:
        return any(_is_of(job_id, message) for message in _messages(client))


def _messages(client: redis.Redis) -> Iterator[bytes | str]:
    ids: list[Any] = list(client.hkeys(LANES + QUEUE))
    lanes = [lane_name(QUEUE, one.decode()) for one in ids]
    for name, step in product((QUEUE, *lanes), PRIORITY_STEPS):
        queue = f"{name}{Channel.sep}{step}" if step else name
        start = 0
        # New messages push the others on: none is passed over.
        while chunk := client.lrange(queue, start, start + _CHUNK - 1):
            yield from chunk
            start += _CHUNK
    for _, message in client.hscan_iter(UNACKED, count=_CHUNK):
        yield message


def _is_of(job_id: str, message: bytes | str) -> bool:
    # Anybody may have put anything there.
    with suppress(ValueError, LookupError, TypeError, RecursionError):
        content = json.loads(message)
        # Those given to a worker are kept with exchange and routing key.
        envelope = content[0] if isinstance(content, list) else content
        return bool(envelope["headers"]["id"] == job_id)
    return False
