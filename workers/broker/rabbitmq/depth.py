"""How many jobs wait in RabbitMQ, which tells neither which these are nor since when they wait."""

from collections.abc import Iterable
from typing import Any

from amqp.exceptions import AMQPError, NotFound
from kombu.exceptions import OperationalError

from settings.rabbitmq import QUEUES, RETURNED
from tasks.app import app
from tasks.errors import BrokerUnavailableError
from workers.broker.rabbitmq.lanes import level_of

_LEVELS = {**{queue: level for level, queue in QUEUES.items()}, RETURNED: "returned"}

# Seconds for each answer; a connection is given up after Celery's own.
_ANSWER_SECONDS = 4.0
_PATIENCE = {"read_timeout": _ANSWER_SECONDS, "write_timeout": _ANSWER_SECONDS}


def waiting(lanes: Iterable[str]) -> dict[str, int]:
    """How many jobs nobody has, by level, those in these lanes included.

    Raises:
        BrokerUnavailableError: RabbitMQ is away, or does not let this process in.
    """
    counts = dict.fromkeys(_LEVELS.values(), 0)
    try:
        with app.connection_for_read(transport_options=_PATIENCE) as connection:
            channel = connection.default_channel
            for queue in (*_LEVELS, *lanes):
                counts[_LEVELS.get(level_of(queue), "normal")] += _ready(channel, queue)
    except (OSError, OperationalError, AMQPError) as error:
        # What they say themselves is many things, such as "Resource temporarily unavailable".
        cause = error.__cause__ or error
        raise BrokerUnavailableError(f"RabbitMQ did not answer ({type(cause).__name__})") from error
    return counts


def _ready(channel: Any, queue: str) -> int:
    try:
        return int(channel.queue_declare(queue, passive=True).message_count)
    except NotFound:
        return 0
