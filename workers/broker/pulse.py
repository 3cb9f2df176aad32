"""The beat of the consumer's loop, and whether it has its broker."""

import time
from typing import Any

from celery import bootsteps
from celery.worker.consumer.tasks import Tasks

# Seconds between two beats of a loop that turns.
_BEAT_SECONDS = 2.0
# Seconds without an answer. A Redis is given a sign of life every three; RabbitMQ gives one every
# five by itself.
_UNANSWERED_SECONDS = 12.0


class LoopPulse(bootsteps.StartStopStep):  # type: ignore[misc]  # celery has no types for it
    """Beats the attribute `pulse` of the worker (Celery's controller) while the loop turns."""

    requires = (Tasks,)

    def __init__(self, consumer: Any, **options: Any) -> None:
        """Start nothing yet; a consumer has one of these for all its connections."""
        super().__init__(consumer, **options)
        self._pulse = consumer.controller.pulse
        self._timer: Any = None

    def start(self, consumer: Any) -> None:
        """Celery's hook for each new connection."""
        self._pulse.beat()
        self._timer = consumer.timer.call_repeatedly(_BEAT_SECONDS, self._pulse.beat)

    def stop(self, consumer: Any) -> None:
        """Celery's hook for each connection that has ended, and for the worker's end."""
        if self._timer is not None:
            self._timer.cancel()
        self._pulse.is_over = consumer.blueprint.state != bootsteps.RUN
        self._pulse.beat()


def broker_trouble(consumer: Any) -> str:
    """What is wrong with a consumer's connection; nothing if it is well.

    Args:
        consumer: Celery's; None before the worker has made it.
    """
    connection = getattr(consumer, "connection", None)
    if connection is None or not connection.connected:
        return "there is no connection to the broker"
    answered_at = _answered_at(consumer)
    silent = 0.0 if answered_at is None else time.monotonic() - answered_at
    return f"the broker has not answered for {silent:.0f} s" if silent > _UNANSWERED_SECONDS else ""


def _answered_at(consumer: Any) -> float | None:
    if consumer.connection.transport.driver_type == "redis":
        return consumer.message_heartbeat.succeeded_at  # type: ignore[no-any-return]
    channel = getattr(consumer.task_consumer, "channel", None)
    return getattr(getattr(channel, "connection", None), "heard_at", None)
