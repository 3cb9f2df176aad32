"""Jobs that nobody has begun: a message in the broker is all that there is of them."""

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import redis
from kombu.transport.redis import PRIORITY_STEPS, Channel

from settings import Settings
from settings.celery import QUEUE, UNACKED
from tasks.enqueue import ENQUEUED_AT
from workers.broker.scripts import LANES, lane_name
from workers.ledger.connection import connect
from workers.ledger.seam import translated

# Messages fetched at once: each may be megabytes.
_CHUNK = 20

# How often messages are looked for that are in none of the places.
_LOOKS = 2

# In the place of a queue, of messages that were given to a worker.
_GIVEN = ""

_MALFORMED = (ValueError, LookupError, TypeError, AttributeError, RecursionError)


@dataclass(frozen=True)
class Waiting:
    """A job whose message the broker has.

    Attributes:
        job_id: of the job.
        enqueued_at: Unix time; None if its message does not say.
        priority: as the broker has it, if it has one.
        where: in the queue, in a lane of it, or given to a worker, which may have begun it.
    """

    job_id: str
    enqueued_at: float | None
    priority: int | None
    where: Literal["queue", "lane", "worker"]


def are_listed(settings: Settings) -> bool:
    """Whether the broker lets one look at messages without taking them."""
    return not settings.on_rabbitmq


def waiting_among(redis_url: str, job_ids: Iterable[str]) -> frozenset[str]:
    """Those of the jobs of which the broker has a message, in the queue or given to a worker.

    Raises:
        BrokerUnavailableError: Redis is away.
    """
    wanted, found = set(job_ids), set[str]()
    with connected(redis_url) as client:
        # A message that moves from a worker to a list which was read before is met by neither look.
        for _ in range(_LOOKS):
            for _, message in _messages(client):
                if found == wanted:
                    break
                if (job_id := _job_id(message)) in wanted:
                    found.add(str(job_id))
    return frozenset(found)


def latest_waiting(redis_url: str, limit: int) -> list[Waiting]:
    """The jobs that came last to the queue, to its lanes and to workers, so many of each at most.

    Raises:
        BrokerUnavailableError: Redis is away.
    """
    with connected(redis_url) as client:
        read = (_waiting(queue, message) for queue, message in _messages(client, limit))
        found = {one.job_id: one for one in read if one is not None}
    return list(found.values())


@contextmanager
def connected(redis_url: str) -> Iterator[redis.Redis]:
    """A client of the broker, whose answers are bytes: anybody may have put anything there.

    Raises:
        BrokerUnavailableError: Redis is away.
    """
    with translated(), connect(redis_url) as client:
        yield client


def _messages(client: redis.Redis, most: int = sys.maxsize) -> Iterator[tuple[str, bytes | str]]:
    """The messages in each list, the latest first, and those given to workers; so many of each."""
    ids: list[Any] = list(client.hkeys(LANES + QUEUE))
    lanes = [lane_name(QUEUE, one.decode()) for one in ids]
    for name, step in product((QUEUE, *lanes), PRIORITY_STEPS):
        queue = f"{name}{Channel.sep}{step}" if step else name
        start = 0
        # New messages push the others on: none is passed over.
        while chunk := client.lrange(queue, start, min(start + _CHUNK, most) - 1):
            yield from ((name, message) for message in chunk)
            start += _CHUNK
            if start >= most:
                break
    for number, (_, message) in enumerate(client.hscan_iter(UNACKED, count=_CHUNK)):
        if number >= most:
            return
        yield _GIVEN, message


def _waiting(queue: str, message: bytes | str) -> Waiting | None:
    # Anybody may have put anything there.
    with suppress(*_MALFORMED):
        envelope = _envelope(message)
        headers, properties = envelope["headers"], envelope["properties"]
        at, priority = headers.get(ENQUEUED_AT), properties.get("priority")
        return Waiting(
            str(headers["id"]),
            enqueued_at=at if isinstance(at, int | float) else None,
            priority=priority if isinstance(priority, int) else None,
            where="worker" if queue == _GIVEN else "queue" if queue == QUEUE else "lane",
        )
    return None


def _job_id(message: bytes | str) -> str | None:
    with suppress(*_MALFORMED):
        return str(_envelope(message)["headers"]["id"])
    return None


def _envelope(message: bytes | str) -> Any:
    content = json.loads(message)
    # Those given to a worker are kept with exchange and routing key.
    return content[0] if isinstance(content, list) else content
