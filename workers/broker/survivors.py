"""Messages that outlive their connection to the broker."""

from typing import Any

from celery import bootsteps
from celery.worker.consumer.tasks import Tasks
from kombu.transport import virtual


class Survivors(bootsteps.StartStopStep):  # type: ignore[misc]  # celery has no types for it
    """Has the new connection's channel hold what was under way over the one before.

    On Redis a delivery tag belongs to the message and not to the channel: what runs or is postponed
    is renewed and settled as if nothing had happened, and need not come again.
    """

    requires = (Tasks,)

    def start(self, consumer: Any) -> None:
        """Celery's hook for each new connection."""
        if consumer.connection.transport.driver_type != "redis":
            return
        channel = consumer.task_consumer.channel
        for message in tuple(consumer.unsettled):
            message.channel = channel
            virtual.QoS.append(channel.qos, message, message.delivery_tag)
            if message in consumer.postponed:
                consumer.qos.increment_eventually()
