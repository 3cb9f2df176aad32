"""Messages as RabbitMQ delivers them: whether they came before, and copies of them."""

from typing import Any

import amqp

from settings.rabbitmq import QUEUES

# Where a copy tells that a worker may have had its original.
_CAME_AGAIN = "comfyfleet-came-again"

# Where queues of the type "quorum" count how often they have delivered a message.
_DELIVERIES = "x-delivery-count"

# After so many deliveries a copy goes on in the place of a message: RabbitMQ 4 drops it after 20.
_MOST_DELIVERIES = 8

# The priorities of messages that say none, by their level.
_PRIORITIES = {"urgent": 9, "normal": 5, "batch": 1}
_LEVELS = {queue: level for level, queue in QUEUES.items()}

# Not for a copy: Celery's own header says when a job is too late, and who sends it now is another.
_OF_THE_ORIGINAL = ("expiration", "user_id", "application_headers")


def level_priority(queue: str) -> int:
    """The priority, as a number of RabbitMQ's, of messages in a queue that say none."""
    return _PRIORITIES[_LEVELS.get(queue, "normal")]


def came_again(raw: Any) -> bool:
    """Whether a worker may have had a message before."""
    return bool(raw.delivery_info.get("redelivered") or _headers(raw).get(_CAME_AGAIN))


def is_worn(raw: Any) -> bool:
    """Whether a message was delivered so often that RabbitMQ may soon drop it."""
    deliveries = _headers(raw).get(_DELIVERIES)
    return isinstance(deliveries, int) and deliveries >= _MOST_DELIVERIES


def copied(raw: Any) -> amqp.Message:
    """A copy of a message, to be sent in its place."""
    properties = {k: v for k, v in raw.properties.items() if k not in _OF_THE_ORIGINAL}
    headers = {k: v for k, v in _headers(raw).items() if k != _DELIVERIES}
    if came_again(raw):
        headers[_CAME_AGAIN] = True
    persistent = {"delivery_mode": 2}
    return amqp.Message(raw.body, application_headers=headers, **{**properties, **persistent})


def _headers(raw: Any) -> dict[str, Any]:
    return raw.properties.get("application_headers") or {}
