"""What waits in the broker, counted."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

from kombu.transport.redis import PRIORITY_STEPS, Channel

from settings import Settings
from settings.celery import QUEUE, UNACKED
from workers.broker.envelopes import read_entry
from workers.broker.rabbitmq.depth import waiting as rabbitmq_waiting
from workers.broker.rabbitmq.lanes import LANES as RABBITMQ_LANES
from workers.broker.scripts import LANES, lane_name
from workers.ledger.connection import connect
from workers.ledger.seam import translated


@dataclass(frozen=True)
class Backlog:
    """Jobs in the broker.

    Attributes:
        waiting: how many nobody has, by priority.
        oldest_seconds: for how long the oldest of them has waited; None if none does, or on
            RabbitMQ, which does not tell.
        taken: how many workers have; 0 on RabbitMQ, which does not tell.
    """

    waiting: Mapping[str, int]
    oldest_seconds: float | None
    taken: int


def read_backlog(settings: Settings) -> Backlog:
    """Count what waits, with few commands.

    Raises:
        BrokerUnavailableError: the broker is away.
    """
    with translated(), connect(settings.ledger_url) as client:
        if settings.on_rabbitmq:
            lanes = [one.decode() for one in client.hkeys(RABBITMQ_LANES)]
            return Backlog(rabbitmq_waiting(lanes), None, 0)
        lanes = [one.decode() for one in client.hkeys(LANES + QUEUE)]
        names = [QUEUE, *(lane_name(QUEUE, one) for one in lanes)]
        lists = [(str(step), _list(name, step)) for name in names for step in PRIORITY_STEPS]
        with client.pipeline(transaction=False) as pipe:
            for _, one in lists:
                pipe.llen(one)
                pipe.lindex(one, -1)
            pipe.hlen(UNACKED)
            *answers, taken = pipe.execute()
    waiting = dict.fromkeys(map(str, PRIORITY_STEPS), 0)
    for (level, _), length in zip(lists, answers[::2], strict=True):
        waiting[level] += length
    ages = [_age(one) for one in answers[1::2] if one is not None]
    return Backlog(waiting, max(ages, default=None), int(taken))


def _list(name: str, step: int) -> str:
    return f"{name}{Channel.sep}{step}" if step else name


def _age(entry: bytes) -> float:
    envelope, _ = read_entry(entry, QUEUE)
    enqueued_at = envelope["headers"].get("enqueued_at")
    return max(0.0, time.time() - enqueued_at) if isinstance(enqueued_at, int | float) else 0.0
