"""What producers must mind where the broker is RabbitMQ."""

from typing import Any

from amqp.exceptions import MessageNacked, PreconditionFailed
from celery import signals

from tasks.app import TASK_NAME

RABBITMQ = "amqp"
"""Kombu's name of such brokers."""

CONFIRM_SECONDS = 30.0
"""That RabbitMQ may take to confirm a job, until it is sent again."""


def is_other_queue(error: Exception) -> bool:
    """Whether a queue is there, with other arguments than those it was declared with."""
    return isinstance(error, PreconditionFailed)


def is_refusal(error: Exception) -> bool:
    """Whether the broker has said that it does not take a message."""
    return isinstance(error, MessageNacked)


def _keep_expired(properties: dict[str, Any], **_: Any) -> None:
    # RabbitMQ would drop the message without a word. Workers tell what became of the job.
    properties.pop("expiration", None)


signals.before_task_publish.connect(_keep_expired, sender=TASK_NAME, weak=False)
