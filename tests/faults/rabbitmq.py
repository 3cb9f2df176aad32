"""A fleet on RabbitMQ, on which the scenes of other modules can be played as well."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import amqp
import pytest

from sandbox.rabbitmq import RabbitMQ, find_server
from sandbox.stack import Stack
from tests.faults.scenes import Fleet

needs_rabbitmq = pytest.mark.skipif(
    find_server() is None, reason="rabbitmq-server is not installed: apt-get install it"
)

LEVELS = ("comfyui.urgent", "comfyui", "comfyui.returned", "comfyui.batch")


class RabbitFleet(Fleet):
    """A fleet with a vhost of its own on a RabbitMQ server that others use, too."""

    def __init__(self, stack: Stack, rabbitmq: RabbitMQ, kind: str) -> None:
        super().__init__(stack)
        self.workers: list[Any] = []
        # It is looked often: a connection for each look would cost more than what is looked at.
        self._looking: amqp.Channel | None = None
        self.rabbitmq = rabbitmq
        self.vhost = rabbitmq.vhost(kind)
        self._own["CELERY_BROKER_URL"] = rabbitmq.url(self.vhost)
        self.reconnect()

    def reconnect(self) -> None:
        """Have a client that knows nothing of the broker before, as docs/brokers.md wants it."""
        super().reconnect()
        # Without it a job may be lost that RabbitMQ, when it is killed, has not written yet.
        self.client.celery.conf.broker_transport_options = {"confirm_publish": True}

    @contextmanager
    def channel(self) -> Iterator[amqp.Channel]:
        """A channel to look at queues with."""
        with self._connected() as connection:
            yield connection.channel()

    def ready(self, *queues: str) -> int:
        """How many messages wait in queues, by default in all those of the levels."""
        names = queues or (*LEVELS, *self._lanes())
        try:
            return sum(self._ready(queue) for queue in names)
        except (OSError, amqp.AMQPError):
            # The broker went away since it was looked last.
            self._looking = None
            return sum(self._ready(queue) for queue in names)

    def waiting(self) -> list[str]:
        """Jobs that nobody has taken: RabbitMQ tells how many, and not which."""
        return ["?"] * self.ready()

    def in_lanes(self) -> list[str]:
        """Jobs that wait in lanes: RabbitMQ tells how many, and not which."""
        lanes = self._lanes()
        return ["?"] * (self.ready(*lanes) if lanes else 0)

    def has_drained(self) -> bool:
        """Whether no message waits; those that are being worked on cannot be told from here."""
        return self.ready() == 0

    def is_settled(self) -> bool:
        """Whether no message is left when all workers have gone: what one held has come back."""
        for worker in self.workers:
            worker.stop()
        return self.ready() == 0

    def worker(self, server: Any, **settings: str) -> Any:
        """A worker that takes jobs."""
        self.workers.append(super().worker(server, **settings))
        return self.workers[-1]

    def _lanes(self) -> list[str]:
        return sorted(self.redis.hkeys("comfyfleet:rabbitmq:lanes"))  # type: ignore[arg-type]

    def _ready(self, queue: str) -> int:
        if self._looking is None:
            connection = self._connected()
            connection.connect()
            self._undo.callback(connection.collect)
            self._looking = connection.channel()
        try:
            return int(self._looking.queue_declare(queue, passive=True).message_count)
        except amqp.NotFound:
            return 0

    def _connected(self) -> amqp.Connection:
        return amqp.Connection(self.rabbitmq.address, virtual_host=self.vhost, confirm_publish=True)
