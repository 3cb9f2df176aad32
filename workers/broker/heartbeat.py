"""A worker's sign of life to its broker: what it renews, no other worker is given."""

import logging
import threading
import time
from typing import Any

from celery import bootsteps
from celery.worker.consumer.tasks import Tasks
from redis import Redis

from workers.broker.scripts import BEGIN_TO_WRITE, TAKERS
from workers.ledger.servers import NOW

logger = logging.getLogger(__name__)

# Seconds between two beats, and until a beat is given up.
INTERVAL = 3.0

# Members of one call of the script.
_CHUNK = 1000

# KEYS: a sorted set. ARGV: members whose score becomes now if they are still in it.
_RENEW = f"""
{NOW}
{BEGIN_TO_WRITE}
for _, member in ipairs(ARGV) do redis.call('ZADD', KEYS[1], 'XX', now, member) end
"""


class Heartbeat(bootsteps.StartStopStep):  # type: ignore[misc]  # celery has no types for it
    """Renews what the consumer's channel holds: running, prefetched and postponed jobs.

    It has a thread and a connection of its own: the consumer may be busy or wait for the broker.
    A consumer has it as `message_heartbeat`.
    """

    requires = (Tasks,)

    def __init__(self, consumer: Any, **options: Any) -> None:
        """Start nothing yet; a consumer has one heartbeat for all its connections."""
        super().__init__(consumer, **options)
        consumer.message_heartbeat = self
        self.succeeded_at: float | None = None
        self._ended = threading.Event()

    def start(self, consumer: Any) -> None:
        """Celery's hook for each new connection."""
        if consumer.connection.transport.driver_type != "redis":
            return
        self._ended = threading.Event()
        threading.Thread(
            target=self._beat,
            args=(consumer.task_consumer.channel, self._ended),
            name="heartbeat",
            daemon=True,
        ).start()

    def stop(self, consumer: Any) -> None:
        """Celery's hook for each connection that has ended, and for the worker's end."""
        # At the worker's end jobs may still run: it beats until they are settled.
        if consumer.blueprint.state == bootsteps.RUN:
            self._ended.set()

    def shutdown(self, consumer: Any) -> None:  # noqa: ARG002  # celery's signature
        """Celery's hook for the worker's end, just before its connection is closed."""
        self._ended.set()

    def _beat(self, channel: Any, ended: threading.Event) -> None:
        failing = False
        with client_beside(channel) as client:
            while not ended.is_set():
                try:
                    renew(channel, client)
                except Exception as error:  # noqa: BLE001  # the next beat may succeed
                    if not failing:
                        logger.warning("the broker gets no sign of life: %r", error)
                    failing = True
                else:
                    self.succeeded_at = time.monotonic()
                    if failing:
                        logger.warning("the broker gets signs of life again")
                    failing = False
                ended.wait(INTERVAL)


def renew(channel: Any, client: Redis) -> None:
    """Tell the broker that a channel still holds what it holds, in one round trip.

    Raises:
        RedisError: the broker may not know.
    """
    held = channel.qos.held()
    with client.pipeline(transaction=False) as pipe:
        pipe.eval(_RENEW, 1, TAKERS, *channel.taken_lists)
        for start in range(0, len(held), _CHUNK):
            chunk = held[start : start + _CHUNK]
            pipe.eval(_RENEW, 1, channel.qos.unacked_index_key, *chunk)
        pipe.execute()


def client_beside(channel: Any) -> Redis:
    """A client of a channel's server with connections of its own, whose waits are short."""
    # Of the channel's own it would wait as long as that does, and outlive what it should renew.
    return Redis.from_pool(channel.pool_beside(INTERVAL))
