"""A channel that takes a message from RabbitMQ when its worker wants one, and not before.

Of what RabbitMQ has sent ahead no other worker can have anything. So nothing is consumed while the
worker has enough; else it is looked into the queues, the most urgent first, and if all are empty
the worker listens at all of them for the next message. Who has nothing to do listens with a higher
priority than who takes ahead: RabbitMQ itself gives each message to somebody who idles.

A message belongs to its connection: RabbitMQ gives it back when that ends, at once, to whoever
listens. That its job may still run is what the ledger knows.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from typing import Any
from uuid import uuid4

import amqp
from amqp.exceptions import AMQPError, MessageNacked, NotFound, RecoverableConnectionError
from kombu.asynchronous import get_event_loop
from kombu.transport import pyamqp
from redis.exceptions import RedisError

from settings.celery import QUEUE
from workers.broker.rabbitmq.lanes import LaneQueue, in_order, lane_queue, level_of
from workers.broker.rabbitmq.messages import came_again, copied, is_worn, level_priority
from workers.broker.scripts import HUNGRY
from workers.broker.transport import LANE, UNABLE, Standing
from workers.execution.appetite import Appetite
from workers.routing.lanes import Lane

logger = logging.getLogger(__name__)

# As whom a worker listens.
_PRIORITIES = {Appetite.HUNGER: 10, Appetite.AHEAD: 0}

# Of messages whose connection has ended.
_GONE = "a message outlived its connection and could not be settled; it comes again"


class Channel(pyamqp.Channel):  # type: ignore[misc]  # kombu has no types for it
    """Kombu's channel; one with an appetite takes what that wants."""

    # What this worker wants when it has taken so many messages; what it may take at once. A channel
    # without it consumes as any other does.
    appetite: Callable[[int], Appetite] | None = None
    slots = 0
    # What its server is good for just now.
    standing: Callable[[], Standing] = staticmethod(Standing)
    # Makes a lane known to all workers.
    add_lane: Callable[[LaneQueue], None]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.name = uuid4().hex
        self.lanes: tuple[LaneQueue, ...] = ()
        self.hungry = (HUNGRY + QUEUE,)
        # The callbacks of the queues that are consumed, by consumer tag and in the queues' order.
        self._consumed: dict[str, tuple[str, Callable[[Any], None]]] = {}
        # What is to be settled, by delivery tag.
        self._held: dict[int, Any] = {}
        self._lane_of: dict[int, Lane] = {}
        self._declared: set[str] = set()
        self._prefetch_count = 0
        # As whom it listens and at which queues, and the consumers by which it does.
        self._listening: tuple[Appetite, tuple[str, ...]] | None = None
        self._consumers: list[str] = []
        self._serial = count(1)
        self._is_limited = False
        self._outlet: Any = None
        super().__init__(*args, **kwargs)

    def wait(self, *args: Any, **options: Any) -> Any:
        """py-amqp's hook: wait for an answer of RabbitMQ's, and not for ever.

        Raises:
            TimeoutError: there was none.
        """
        connection = self.connection
        if connection is None:
            raise RecoverableConnectionError("the connection is closed")
        with connection.answering():
            return super().wait(*args, **options)

    # What Celery does with a channel

    def queue_declare(
        self, queue: str = "", passive: bool = False, durable: bool = False, **options: Any
    ) -> Any:
        """Kombu's hook: a queue that is there is used, of whichever type somebody has made it."""
        if durable and not passive and (found := self._existing(queue)) is not None:
            return found
        return super().queue_declare(queue, passive=passive, durable=durable, **options)

    def basic_qos(self, _size: int, prefetch_count: int, _global: bool, **_: Any) -> None:
        """Kombu's hook: what waits for its time adds to this; RabbitMQ is told another number."""
        self._prefetch_count = prefetch_count

    def basic_consume(self, queue: str = "", *args: Any, **options: Any) -> Any:
        """Kombu's hook: from now on a message of this queue may be taken."""
        if self.appetite is None:
            return super().basic_consume(queue, *args, **options)
        self._consumed[options["consumer_tag"]] = (queue, options["callback"])
        return options["consumer_tag"]

    def basic_cancel(self, consumer_tag: str, **options: Any) -> None:
        """Kombu's hook: no message of its queue is to be taken any more."""
        if self._consumed.pop(consumer_tag, None) is None:
            super().basic_cancel(consumer_tag, **options)
        else:
            consumers, self._consumers, self._listening = self._consumers, [], None
            self._cancel(consumers)

    def basic_ack(self, delivery_tag: int, **options: Any) -> None:
        """Kombu's hook: remove a message for good."""
        with self._settling(delivery_tag) as is_possible:
            if is_possible:
                super().basic_ack(delivery_tag, **options)

    def basic_reject(self, delivery_tag: int, requeue: bool, **options: Any) -> None:
        """Kombu's hook: remove a message, or give it back to where it came from, or to its lane."""
        lane, raw = self._lane_of.pop(delivery_tag, None), self._held.get(delivery_tag)
        with self._settling(delivery_tag) as is_possible:
            if not is_possible:
                return
            if requeue and raw is not None and self._sent_on(raw, lane):
                super().basic_ack(delivery_tag)
            else:
                super().basic_reject(delivery_tag, requeue, **options)

    def send_to(self, delivery_tag: int, lane: Lane) -> None:
        """Have a message go to a lane when it is rejected to come again."""
        self._lane_of[delivery_tag] = lane

    # Taking

    def tick(self) -> None:
        """Take what is wanted; called by the consumer's loop whenever something may have changed.

        Raises:
            connection errors: RabbitMQ is away.
        """
        while self.connection is not None and self._take_turn():
            if (hub := get_event_loop()) is not None:
                # What came together with an answer no event announces.
                self.connection.read_on(hub)

    def _take_turn(self) -> bool:
        """Come closer to what is wanted; whether something was done."""
        queues = in_order([queue for queue, _ in self._consumed.values()], self.lanes)
        wanted = self._wanted()
        if self._listening is not None:
            if self._listening == (wanted, queues):
                return False
            before = self._consumers
            if self._listening[1] == queues and wanted is not Appetite.NONE:
                # Without a moment in which a message could go to somebody who wants it less.
                self._consumers = []
                self._listen(wanted, queues)
            else:
                self._listening, self._consumers = None, []
            self._cancel(before)
            return True
        if wanted is Appetite.NONE:
            return False
        if not self._look(queues):
            self._listen(wanted, queues)
        return True

    @property
    def is_hungry(self) -> bool:
        """Whether the server has nothing to do and nothing was found for it."""
        listening = self._listening
        return listening is not None and listening[0] is Appetite.HUNGER

    @property
    def among_hungry(self) -> str:
        """The name by which it is known when it is hungry: who has jobs must know for whom."""
        return f"{self.name}:{self.standing().digest}"

    def _wanted(self) -> Appetite:
        # Messages that wait for their time take no slot: each adds one to what may be taken.
        waiting = self._prefetch_count - self.slots
        taken = len(self._held) - waiting
        if self.appetite is None or not self._consumed or taken >= self.slots:
            return Appetite.NONE
        return self.appetite(taken)

    def _look(self, queues: tuple[str, ...]) -> bool:
        """Take the most urgent message; whether there was one."""
        for queue in queues:
            self._make_sure_of(queue)
            with self.connection.lock:
                raw = self.basic_get(queue)
            if raw is not None:
                self._deliver(raw, queue)
                return True
        return False

    def _listen(self, appetite: Appetite, queues: tuple[str, ...]) -> None:
        with self.connection.lock:
            if not self._is_limited:
                # One message for each consumer that begins after this.
                super().basic_qos(0, 1, False)
                self._is_limited = True
            self._listening = (appetite, queues)
            for queue in queues:
                tag = f"{self.name}-{next(self._serial)}"
                self._consumers.append(tag)
                super().basic_consume(
                    queue,
                    consumer_tag=tag,
                    nowait=True,
                    callback=lambda raw, queue=queue: self._on_message(raw, queue),
                    arguments={"x-priority": _PRIORITIES[appetite]},
                )

    def _cancel(self, consumers: list[str]) -> None:
        if self.connection is None:
            return
        with self.connection.lock:
            for tag in consumers:
                # What is on its way arrives before the answer.
                super().basic_cancel(tag)

    def _on_message(self, raw: Any, queue: str) -> None:
        if self._wanted() is Appetite.NONE:
            # Another queue had one at the same time.
            with self.connection.lock:
                super().basic_reject(raw.delivery_tag, True)
            return
        if self._listening is not None:
            # Its consumer gets no other message before this one is settled.
            self._listening = (self._listening[0], ())
        self._deliver(raw, queue)

    def _deliver(self, raw: Any, queue: str) -> None:
        self._held[raw.delivery_tag] = raw
        lane = next((one for one in self.lanes if one.name == queue), None)
        raw.queue = queue
        raw.properties.setdefault("priority", level_priority(level_of(queue)))
        raw.delivery_info |= {
            "redelivered": came_again(raw),
            LANE: lane.id if lane else "",
            UNABLE: lane.unable if lane else (),
        }
        # All queues have the same: Celery's.
        _, callback = next(iter(self._consumed.values()))
        callback(raw)

    # Settling

    @contextmanager
    def _settling(self, delivery_tag: int) -> Iterator[bool]:
        """Settle a message; whether that can be done."""
        self._held.pop(delivery_tag, None)
        connection = self.connection
        if connection is None:
            logger.info(_GONE)
            yield False
            return
        # When the worker ends jobs settle in their own threads.
        with connection.lock:
            yield True

    def _sent_on(self, raw: Any, lane: Lane | None) -> bool:
        """Whether a copy of a message was sent to where it belongs, in place of giving it back."""
        queue = raw.queue
        try:
            if lane is not None:
                to = lane_queue(queue, lane)
                self.add_lane(to)
                queue = to.name
            elif not is_worn(raw):
                return False
            self._send(copied(raw), queue)
        except (RedisError, MessageNacked, *pyamqp.Transport.connection_errors, AMQPError) as error:
            logger.warning("a job goes back to its queue, and not on to %s: %r", queue, error)
            return False
        return True

    def _send(self, message: amqp.Message, queue: str) -> None:
        self._make_sure_of(queue)
        if self._outlet is None:
            self._outlet = self.connection.channel()
        try:
            self._outlet.basic_publish(message, routing_key=queue, mandatory=True)
        except Exception:
            # A confirmation that still comes is not that of the next message; and somebody may have
            # deleted the queue.
            self._outlet = None
            self._declared.discard(queue)
            raise

    def _make_sure_of(self, queue: str) -> None:
        if queue not in self._declared:
            with self.connection.lock:
                self.queue_declare(queue, durable=True, auto_delete=False)
            self._declared.add(queue)

    def _existing(self, queue: str) -> Any:
        # RabbitMQ closes the channel of who asks for a queue that is not there.
        scratch = self.connection.channel()
        try:
            return scratch.queue_declare(queue, passive=True)
        except NotFound:
            return None
        finally:
            with suppress(*self.connection.connection_errors, *self.connection.channel_errors):
                scratch.close()
