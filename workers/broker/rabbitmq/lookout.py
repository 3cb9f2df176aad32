"""Keeps a worker on RabbitMQ up with what only Redis knows: lanes, and servers that idle."""

import logging
import threading
import time
from typing import Any

from celery import bootsteps
from celery.worker.consumer.tasks import Tasks
from redis import Redis

from workers.broker.heartbeat import INTERVAL
from workers.broker.rabbitmq import lanes
from workers.broker.scripts import CALLS
from workers.broker.sharing import Sharing
from workers.ledger.connection import connect
from workers.ledger.servers import NOW

logger = logging.getLogger(__name__)

# Seconds between two looks at whether the worker is hungry.
_LOOK_SECONDS = 0.2
# Seconds between two looks at the lanes, if nobody tells of a new one.
_LANES_SECONDS = 2.0
# Seconds for which a hungry worker counts as such after it said so, and until it says so again.
_HUNGRY_SECONDS = 1.5
_AGAIN_SECONDS = 0.5

# KEYS: the hungry. ARGV: one of them, seconds for which it is.
_TELL = f"""
{NOW}
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1]) > 0 then
  redis.call('PUBLISH', '{CALLS}', ARGV[1])
end
"""


class Lookout(Sharing):
    """Sharing where the broker is RabbitMQ: who is hungry, and which lanes there are.

    It also has the consumer's loop ask the channel for what is wanted.
    """

    requires = (Tasks,)

    def __init__(self, consumer: Any, **options: Any) -> None:
        """Start nothing yet; a consumer has one of these for all its connections."""
        super().__init__(consumer, **options)
        self._consumer = consumer
        self._ledger_url: str = consumer.controller.ledger_url
        self._channel: Any = None

    def start(self, consumer: Any) -> None:
        """Celery's hook for each new connection."""
        if consumer.connection.transport.driver_type != "amqp":
            return
        self._channel = channel = consumer.task_consumer.channel
        channel.appetite, channel.slots = self._keeper.appetite, consumer.controller.concurrency
        channel.standing, channel.add_lane = self._standing, self._add_lane
        self._told = ""
        self._tell_at = self._look_at = 0.0
        self._ended = threading.Event()
        consumer.hub.on_tick.add(channel.tick)
        self._begin("sharing", self._hear, channel, self._ended)

    def stop(self, consumer: Any) -> None:
        """Celery's hook for each connection that has ended, and for the worker's end."""
        if self._channel is None:
            return
        consumer.hub.on_tick.discard(self._channel.tick)
        if consumer.blueprint.state != bootsteps.RUN:
            # Jobs may still run, whose messages are ours as long as the connection is there; the
            # loop that kept it alive has ended.
            self._begin("heartbeat", _beat, self._channel.connection, self._ended)
        super().stop(consumer)

    def _hear(self, channel: Any, ended: threading.Event) -> None:
        failing = False
        while not ended.is_set():
            try:
                with self._client() as client, client.pubsub() as news:
                    news.subscribe(CALLS, lanes.NEWS)
                    while not ended.is_set():
                        self._keep_up(channel, client)
                        failing = False
                        if news.get_message(ignore_subscribe_messages=True, timeout=_LOOK_SECONDS):
                            self._look_at = 0.0
            except Exception as error:  # noqa: BLE001  # a dead thread would be deaf for good
                if not failing and not ended.is_set():
                    logger.warning("calls of idle workers are not heard: %r", error)
                failing = True
                ended.wait(INTERVAL)

    def _keep_up(self, channel: Any, client: Redis) -> None:
        now = time.monotonic()
        self._tell_hunger(channel, client, now)
        if now >= self._look_at:
            self._look_at = now + _LANES_SECONDS
            self._look_at_lanes(channel, client)
        self._answer(channel, client)

    def _tell_hunger(self, channel: Any, client: Redis, now: float) -> None:
        name = channel.among_hungry if channel.is_hungry else ""
        (key,) = channel.hungry
        if self._told not in ("", name):
            client.zrem(key, self._told)
        if name and (name != self._told or now >= self._tell_at):
            client.eval(_TELL, 1, key, name, _HUNGRY_SECONDS)
            self._tell_at = now + _AGAIN_SECONDS
        self._told = name

    def _look_at_lanes(self, channel: Any, client: Redis) -> None:
        known, live = lanes.look(client)
        standing = self._standing()
        complete = standing.returning_seconds <= 0
        mine = lanes.open_to(known, standing.digest, live, complete=complete)
        if mine != channel.lanes:
            channel.lanes = mine
            self._consumer.call_soon(_nothing)

    def _add_lane(self, lane: lanes.LaneQueue) -> None:
        with self._client() as client:
            lanes.add(client, lane)

    def _client(self) -> Redis:
        return connect(self._ledger_url, socket_timeout=INTERVAL, socket_connect_timeout=INTERVAL)

    @staticmethod
    def _begin(name: str, work: Any, *given: Any) -> None:
        threading.Thread(target=work, args=given, name=name, daemon=True).start()


def _beat(connection: Any, ended: threading.Event) -> None:
    while not ended.wait(INTERVAL):
        try:
            connection.beat()
        except Exception as error:  # noqa: BLE001  # whatever it is: the messages come again
            logger.warning("the broker gets no sign of life: %r", error)
            return


def _nothing() -> None:
    pass
