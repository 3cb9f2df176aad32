"""Lanes on RabbitMQ: queues of jobs that not every server can run, and who may take from which.

The messages are in RabbitMQ. Which lanes there are is in Redis, with the digests of the
capabilities that do not suffice for their jobs.
"""

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from redis import Redis

from workers.ledger.servers import DIGESTS, NOW
from workers.routing.lanes import Lane

# What is known of each lane by the name of its queue.
LANES = "comfyfleet:rabbitmq:lanes"

# Where it is told that there is a new one.
NEWS = "comfyfleet:rabbitmq:lanes:news"

_MARK = ".lane."

# KEYS: the lanes, the digests. The lanes with what is known of them, and the digests of the
# capabilities of servers of which workers have told lately.
_LOOK = f"""
{NOW}
return {{redis.call('HGETALL', KEYS[1]), redis.call('ZRANGE', KEYS[2], '(' .. now, '+inf',
    'BYSCORE')}}
"""


@dataclass(frozen=True)
class LaneQueue:
    """A lane's queue.

    Attributes:
        name: of the queue.
        unable: digests of the capabilities that do not suffice for its jobs.
    """

    name: str
    unable: tuple[str, ...]

    @property
    def id(self) -> str:
        """The lane's name, the same on all levels."""
        return self.name.partition(_MARK)[2]

    @property
    def level(self) -> str:
        """The queue that its jobs would wait in otherwise."""
        return level_of(self.name)


def level_of(queue: str) -> str:
    """The queue in which a queue's jobs would wait if every server could run them."""
    return queue.partition(_MARK)[0]


def lane_queue(queue: str, lane: Lane) -> LaneQueue:
    """The queue of a lane for jobs that came from this queue."""
    return LaneQueue(f"{level_of(queue)}{_MARK}{lane.id}", lane.unable)


def add(client: Redis, lane: LaneQueue) -> None:
    """Have all workers know a lane.

    Raises:
        RedisError: perhaps they do not.
    """
    with client.pipeline(transaction=False) as pipe:
        pipe.hset(LANES, lane.name, json.dumps({"unable": lane.unable}))
        pipe.publish(NEWS, lane.name)
        pipe.execute()


def look(client: Redis) -> tuple[tuple[LaneQueue, ...], frozenset[str]]:
    """All lanes, and the digests of the capabilities that there are just now.

    Raises:
        RedisError: they are not known.
    """
    told, digests = client.eval(_LOOK, 2, LANES, DIGESTS)
    pairs = zip(told[::2], told[1::2], strict=True)
    lanes = tuple(LaneQueue(name.decode(), _unable(known)) for name, known in pairs)
    return lanes, frozenset(digest.decode() for digest in digests)


def _unable(known: bytes) -> tuple[str, ...]:
    told: Any = json.loads(known)
    return tuple(told["unable"])


def open_to(
    lanes: Iterable[LaneQueue], digest: str, live: Collection[str], *, complete: bool
) -> tuple[LaneQueue, ...]:
    """The lanes from which a worker takes: those whose jobs its server can run, or nobody can.

    Args:
        lanes: all that there are.
        digest: of what its server can do; empty if that is not known.
        live: digests of the servers that there are.
        complete: whether all servers that were there before must have come back by now.
    """
    return tuple(one for one in lanes if _is_open(one, digest, live, complete=complete))


def _is_open(lane: LaneQueue, digest: str, live: Collection[str], *, complete: bool) -> bool:
    # Who does not know its server leaves to others what not every server can run.
    if digest and digest not in lane.unable:
        return True
    # Of oneself one knows: whose server says nothing waits for no such server.
    return complete and all(one in lane.unable or one == digest for one in live)


def in_order(levels: Sequence[str], lanes: Iterable[LaneQueue]) -> tuple[str, ...]:
    """The names of the queues to take from: of each level the lanes before the queue itself."""
    lanes = sorted(lanes, key=lambda one: one.name)
    return tuple(
        name
        for level in levels
        for name in (*(one.name for one in lanes if one.level == level), level)
    )
