"""Kombu's transport for RabbitMQ, with channels that take what their worker wants."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kombu.transport import pyamqp

from workers.broker.rabbitmq.channel import Channel

# Seconds that RabbitMQ may take to answer: a queue whose nodes are away does not.
_ANSWER_SECONDS = 15.0


class Connection(pyamqp.Connection):  # type: ignore[misc]  # kombu has no types for it
    """Kombu's connection with our channels."""

    Channel = Channel

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.lock = threading.RLock()
        # Until when what is waited for must have come, on the monotonic clock.
        self._deadline: float | None = None
        self.heard_at = time.monotonic()
        """When the last bytes came, on the monotonic clock; signs of life count."""
        super().__init__(*args, **kwargs)

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Let what is waited for come in time; signs of life do not count."""
        before = self._deadline
        self._deadline = before or time.monotonic() + _ANSWER_SECONDS
        try:
            yield
        finally:
            self._deadline = before

    def blocking_read(self, timeout: float | None = None) -> Any:
        """py-amqp's hook: read what comes next.

        Raises:
            TimeoutError: nothing has come in time.
        """
        if timeout is None and self._deadline is not None:
            timeout = self._deadline - time.monotonic()
            if timeout <= 0:
                raise TimeoutError("RabbitMQ does not answer")
        read = super().blocking_read(timeout)
        self.heard_at = time.monotonic()
        return read

    def read_on(self, hub: Any) -> None:
        """Read what has come without the loop's knowledge."""
        if self.client is not None and self.connected:
            self.client.transport.on_readable(self, hub)

    def beat(self) -> None:
        """Give a sign of life.

        Raises:
            connection errors: RabbitMQ is away.
        """
        with self.lock:
            self.send_heartbeat()


class Transport(pyamqp.Transport):  # type: ignore[misc]  # kombu has no types for it
    """Kombu's transport with our connections."""

    Connection = Connection

    # An error that ends a channel, such as a message that was held for too long, ends the
    # connection, not the worker: it connects anew.
    connection_errors = (
        *pyamqp.Transport.connection_errors,
        *pyamqp.Transport.channel_errors,
    )

    def qos_semantics_matches_spec(self, _connection: Any) -> bool:
        """Kombu's hook: prefetch counts are each consumer's, which queues of all types can do."""
        return True


class SSLTransport(pyamqp.SSLTransport, Transport):  # type: ignore[misc]  # kombu has no types
    """The same over TLS."""

    def establish_connection(self) -> Any:
        """Kombu's hook: connect to the node whose turn it is, and to nobody else."""
        options = self.client.ssl
        # Kombu would write the first node's name into it, for good.
        self.client.ssl = dict(options) if isinstance(options, dict) else options
        try:
            return super().establish_connection()
        finally:
            self.client.ssl = options


TRANSPORTS = {"amqp": Transport, "amqps": SSLTransport}
"""By the scheme of a broker's URL."""
