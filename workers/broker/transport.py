"""Kombu's Redis transport, which loses no message and soon gives back what a dead worker held.

Kombu's own takes a message off its list and registers it as unacknowledged in a second step:
whatever ends the worker, the connection or the server in between loses it. Here each step is one
atomic move on the server:

    queue's list ──take──▶ channel's taken list ──register──▶ unacknowledged ──ack──▶ gone

A channel announces its taken lists, and renews them and its unacknowledged messages while it lives
(`workers.broker.heartbeat`). What was not renewed for the visibility timeout any worker puts back
to the head of its queue. All times are the server's: the clocks of workers may differ.
"""

import json
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from enum import Enum, auto
from queue import Empty
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from uuid import uuid4

from kombu.asynchronous import get_event_loop
from kombu.transport import redis as redis_transport
from kombu.transport import virtual
from redis import ConnectionPool
from redis.exceptions import OutOfMemoryError, ResponseError

from workers.broker.envelopes import (
    MALFORMED,
    read_entry,
    sound,
)
from workers.broker.scripts import (
    HUNGRY,
    LANES,
    MOVE,
    REGISTER,
    RESTORE,
    RETURN,
    SWEEP,
    TAKE,
    TAKERS,
    lane_name,
)
from workers.execution.appetite import Appetite
from workers.ledger.connection import MasterPool, master_pool
from workers.routing.lanes import Lane

logger = logging.getLogger(__name__)

# Where a message tells from which lane it was taken, and which capabilities do not suffice for it
# as far as that lane tells: digests.
LANE = "lane"
UNABLE = "unable"

# A taken list's name ends with that of the list whose messages it takes.
_TAKEN = "comfyfleet:taken:{channel}:"

# Seconds for which a hungry channel counts as such after it has looked; it looks more often.
_HUNGRY_SECONDS = 0.6

# Seconds until somebody who only takes ahead looks again; at once if his server is idle before.
_AHEAD_SECONDS = 0.2

# A list that nobody writes to: who waits for it waits for the timeout.
_NOTHING = "comfyfleet:nothing"


class GivenAwayError(Exception):
    """A message that this channel took was put back before it was registered."""


class Taken(NamedTuple):
    """A message between the queue's list and the unacknowledged."""

    list: str
    item: bytes
    # In kombu's form: `[envelope, exchange, routing key]`.
    kept: str


class _Ask(Enum):
    LOOK = auto()
    WAIT = auto()
    PAUSE = auto()


class Standing(NamedTuple):
    """What a channel's server is good for.

    Attributes:
        digest: of its capabilities; empty if they are not known.
        models: names those that it has loaded; empty for none.
        wait_seconds: that a job waits for servers which have its models loaded.
        returning_seconds: until other servers that were there before must have come back.
    """

    digest: str = ""
    models: str = ""
    wait_seconds: float = 0.0
    returning_seconds: float = 0.0


class _Found(NamedTuple):
    """A message in a taken list."""

    source: str
    item: bytes
    lane: str = ""
    unable: tuple[str, ...] = ()


def _always(_taken: int) -> Appetite:
    return Appetite.HUNGER


class QoS(redis_transport.QoS):  # type: ignore[misc]  # kombu has no types for it
    """Kombu's bookkeeping of unacknowledged messages, each step of it atomic on the server."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lanes: dict[str, Lane] = {}

    def can_consume(self) -> bool:
        """Kombu's hook: whether one more message is wanted, and may be asked for now."""
        return bool(super().can_consume()) and self.channel.wants_more()

    def append(self, message: Any, delivery_tag: str) -> None:
        """Kombu's hook: register a message as unacknowledged.

        Raises:
            GivenAwayError: it was put back meanwhile; another worker may have it.
        """
        taken = self.channel.taken
        if taken is None:
            super().append(message, delivery_tag)
            return
        with self.channel.conn_or_acquire() as client:
            registered = client.eval(
                REGISTER,
                3,
                *(taken.list, self.unacked_index_key, self.unacked_key),
                *(taken.item, delivery_tag, taken.kept),
            )
        self.channel.taken = None
        if not registered:
            raise GivenAwayError(delivery_tag)
        virtual.QoS.append(self, message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """Kombu's hook: remove a message for good."""
        try:
            super().ack(delivery_tag)
        finally:
            # What cannot be settled takes no slot and is renewed no more: it comes again.
            self._quick_ack(delivery_tag)

    def send_to(self, delivery_tag: str, lane: Lane) -> None:
        """Have a message go to a lane when it is rejected to come again."""
        self._lanes[delivery_tag] = lane

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Kombu's hook: remove a message, or give it back to the head of its queue."""
        lane = self._lanes.pop(delivery_tag, None)
        try:
            if requeue and lane is not None:
                self._move(delivery_tag, lane)
            elif requeue:
                self.restore_by_tag(delivery_tag)
            else:
                self._remove_from_indices(delivery_tag).execute()
        finally:
            self._quick_ack(delivery_tag)

    def restore_unacked(self, client: Any = None) -> None:
        """Kombu's hook at a channel's end: give everything back in the order in which it came."""
        with self.channel.conn_or_acquire(client) as connected:
            for tag in reversed(self._delivered):
                self.restore_by_tag(tag, connected)
        self._delivered.clear()

    def restore_visible(self, start: int = 0, num: int | None = 10, interval: int = 10) -> None:  # noqa: ARG002  # kombu's signature
        """Kombu's timer: put back what no living worker renews, whoever took it.

        Args:
            start: not used.
            num: how many unacknowledged messages at most; default: all.
            interval: each how many calls something is done.
        """
        self._vrestore_count += 1
        if (self._vrestore_count - 1) % (interval or 1):
            return
        with self.channel.conn_or_acquire() as client:
            overdue = client.eval(
                SWEEP, 2, TAKERS, self.unacked_index_key, self.visibility_timeout, num or -1
            )
            # Of a process that was frozen the heartbeat may come later than this.
            own = self.held()
            for tag in (tag for tag in map(bytes.decode, overdue) if tag not in own):
                try:
                    restored = self.restore_by_tag(tag, client, self.visibility_timeout)
                except MALFORMED:
                    # The others must not wait for it.
                    logger.exception("a message cannot be given back")
                else:
                    if restored:
                        logger.warning("a message that nobody renewed is back in its queue")

    def restore_by_tag(self, tag: str, client: Any = None, overdue_seconds: int = 0) -> bool:
        """Give a message back to the head of its queue.

        Args:
            tag: its delivery tag.
            client: of Redis.
            overdue_seconds: how long it must not have been renewed; default: does not matter.

        Returns:
            whether it was given back, and not settled or given back before.
        """
        with self.channel.conn_or_acquire(client) as connected:
            kept = connected.hget(self.unacked_key, tag)
            destination, message = self.channel.returnable(kept) if kept else ("", "")
            return bool(
                connected.eval(
                    RESTORE,
                    3,
                    *(self.unacked_index_key, self.unacked_key, destination),
                    *(tag, message, overdue_seconds),
                )
            )

    def _move(self, tag: str, lane: Lane) -> None:
        message = self._delivered.get(tag)
        with self.channel.conn_or_acquire() as client:
            kept = client.hget(self.unacked_key, tag)
            if kept is None:
                return
            envelope, _, queue = json.loads(kept)
            # What comes from a lane was there before those that wait in it.
            is_next = message is not None and message.delivery_info.get(LANE) == lane.id
            client.eval(
                MOVE,
                3,
                *(self.unacked_index_key, self.unacked_key),
                self.channel.list_of(lane_name(queue, lane.id), envelope),
                *(tag, json.dumps(envelope), queue, lane.id, lane.dumped(), int(is_next)),
            )

    def held(self) -> list[str]:
        """The delivery tags of messages that this channel has to settle; from any thread."""
        while True:
            try:
                return list(self._delivered.keys() - self._dirty)
            except RuntimeError:
                # The consumer's thread changed them just then.
                continue


class Channel(redis_transport.Channel):  # type: ignore[misc]  # kombu has no types for it
    """Kombu's channel, which moves messages where kombu pops them.

    Kombu calls the reply that it waits for a BRPOP. Here it is one of three: look into all lists;
    if they are empty, wait for the most urgent one; and if the server is too full for that, pause.
    Who only takes ahead just looks, every now and then.
    """

    QoS = QoS

    # What this worker wants when it has taken so many messages; what it may take at once.
    appetite: Callable[[int], Appetite] = staticmethod(_always)
    slots = 0
    # What its server is good for just now.
    standing: Callable[[], Standing] = staticmethod(Standing)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.taken: Taken | None = None
        self.taken_lists: tuple[str, ...] = ()
        self.hungry: tuple[str, ...] = ()
        self.name = uuid4().hex
        self._taken_prefix = _TAKEN.format(channel=self.name)
        self._next = _Ask.LOOK
        self._asked = _Ask.LOOK
        self._awaited = ""
        self._wants = Appetite.HUNGER
        self._asked_hungry = True
        self._look_at = 0.0
        super().__init__(*args, **kwargs)

    def _update_queue_cycle(self) -> None:
        super()._update_queue_cycle()
        self.taken_lists = tuple(self._taken_prefix + s for s in self._lists(self.active_queues))
        self.hungry = tuple(HUNGRY + queue for queue in self.active_queues)

    def _basic_cancel(self, consumer_tag: str) -> None:
        if not self._closing:
            # Of a queue that is no longer consumed no message must be under way.
            self.put_back()
        super()._basic_cancel(consumer_tag)

    def close(self) -> None:
        """Kombu's hook: nothing remains taken."""
        if not self.closed:
            self.put_back()
        super().close()

    def _size(self, queue: str) -> int:
        waiting: int = super()._size(queue)
        with self.conn_or_acquire() as client:
            lengths = [int(client.llen(one)) for one in self._lane_lists(client, queue)]
        return waiting + sum(lengths)

    def _purge(self, queue: str) -> int:
        purged: int = super()._purge(queue)
        with self.conn_or_acquire() as client:
            for one in self._lane_lists(client, queue):
                purged += client.llen(one)
                client.delete(one)
        return purged

    def _lane_lists(self, client: Any, queue: str) -> list[str]:
        ids = [one.decode() for one in client.hkeys(LANES + queue)]
        return [one for lane_id in ids for one in self._lists([lane_name(queue, lane_id)])]

    def send_to(self, delivery_tag: str, lane: Lane) -> None:
        """Have a message go to a lane when it is rejected to come again."""
        self.qos.send_to(delivery_tag, lane)

    def put_back(self) -> None:
        """Give back what was taken and not registered, also by a reply that is still to come.

        What cannot be given back now is put back when it is overdue.
        """
        with suppress(*self.connection_errors):
            if self._in_poll:
                self._read_reply()
        if self.taken_lists:
            with suppress(*self.connection_errors), self.conn_or_acquire() as client:
                client.eval(RETURN, 1, TAKERS, *self.taken_lists)

    def pool_beside(self, seconds: float) -> ConnectionPool:
        """Connections of one's own to the same server, none of which waits longer than so long."""
        return ConnectionPool(**{**self._connparams(), "socket_timeout": seconds})

    def returnable(self, kept: bytes) -> tuple[str, str]:
        """Where an unacknowledged message belongs, and what to put there."""
        envelope, _, queue = json.loads(kept)
        envelope["headers"]["redelivered"] = True
        envelope["properties"]["delivery_info"]["redelivered"] = True
        return self.list_of(queue, envelope), json.dumps(envelope)

    def list_of(self, queue: str, envelope: Any) -> str:
        """The list of a queue, or of a lane, that has messages of such a priority."""
        priority = self.default_priority
        # Such as that of an infinite number, which JSON in Python can name.
        with suppress(OverflowError):
            priority = self._get_message_priority(envelope)
        listed: str = self._q_for_pri(queue, priority)
        return listed

    def wants_more(self) -> bool:
        """Whether one more message is wanted, and may be asked for now."""
        qos = self.qos
        # Messages that wait for their time take no slot: each adds one to what may be taken.
        waiting = qos.prefetch_count - self.slots if self.slots and qos.prefetch_count else 0
        self._wants = self.appetite(len(qos.held()) - waiting)
        if self._wants is Appetite.AHEAD:
            return bool(self._in_poll) or time.monotonic() >= self._look_at
        return self._wants is Appetite.HUNGER

    @property
    def among_hungry(self) -> str:
        """The name by which it is known when it is hungry: who has jobs must know for whom."""
        return f"{self.name}:{self.standing().digest}"

    def _lists(self, queues: list[str]) -> list[str]:
        return [self._q_for_pri(queue, step) for step in self.priority_steps for queue in queues]

    def _brpop_start(self, timeout: float | None = None) -> None:
        queues = self._queue_cycle.consume(len(self.active_queues))
        if not queues:
            return
        seconds = timeout or self.brpop_timeout
        sources = self._lists(queues)
        hungry = self._wants is Appetite.HUNGER
        if self._next is _Ask.WAIT and not hungry:
            # Among those who wait whoever was there first is served first, hungry or not.
            self._next = _Ask.LOOK
        self._asked, self._asked_hungry, self._awaited = self._next, hungry, sources[0]
        command: tuple[Any, ...] = ("BLPOP", _NOTHING, seconds)
        if self._asked is _Ask.LOOK:
            keys = (TAKERS, *(HUNGRY + queue for queue in queues), *sources)
            seconds_hungry = _HUNGRY_SECONDS if hungry else 0
            given = (self._taken_prefix, self.among_hungry, len(queues), seconds_hungry)
            command = ("EVAL", TAKE, len(keys), *keys, *given, *self.standing())
        elif self._asked is _Ask.WAIT:
            taken = self._taken_prefix + self._awaited
            command = ("BLMOVE", self._awaited, taken, "RIGHT", "LEFT", seconds)
        self._in_poll = self.client.connection
        self._brpop_sent_at = time.monotonic()
        self.client.connection.send_command(*command)

    def _brpop_read(self, **_: Any) -> bool:
        if not self._in_poll:
            # `put_back` read the reply just now, or the server has ended an idle connection.
            self.client.connection.disconnect()
            raise Empty
        found = self._read_reply()
        if found is None:
            raise Empty
        self._deliver(*found)
        return True

    def _read_reply(self) -> _Found | None:
        self._next = _Ask.LOOK
        try:
            reply = self.client.parse_response(self.client.connection, "")
        except OutOfMemoryError:
            self._next = _Ask.PAUSE
            return None
        except self.connection_errors:
            self.client.connection.disconnect()
            raise
        finally:
            self._in_poll = None
            # No reply is under way now: kombu's moment to show new credentials.
            self._flush_brpop_reauth()
        if reply is None:
            if not self._asked_hungry:
                self._look_later()
            elif self._asked is _Ask.LOOK:
                self._next = _Ask.WAIT
            return None
        if self._asked is _Ask.LOOK:
            source, item, *lane = reply
            if lane:
                lane_id, told = lane
                unable = tuple(json.loads(told)["unable"])
                return _Found(source.decode(), item, lane_id.decode(), unable)
            return _Found(source.decode(), item)
        return _Found(self._awaited, reply)

    def _look_later(self) -> None:
        self._look_at = time.monotonic() + _AHEAD_SECONDS
        if (hub := get_event_loop()) is not None:
            # For the loop to ask then whether more is wanted.
            hub.call_later(_AHEAD_SECONDS, _nothing)

    def _deliver(
        self, source: str, item: bytes, lane: str = "", unable: tuple[str, ...] = ()
    ) -> None:
        queue = source.rsplit(self.sep, 1)[0]
        self._queue_cycle.rotate(queue)
        envelope, text = read_entry(item, queue)
        # Not in what is kept: if it comes again it comes from the queue.
        envelope["properties"]["delivery_info"] |= {LANE: lane, UNABLE: unable}
        kept = f'[{text}, "", {json.dumps(queue)}]'
        self.taken = Taken(self._taken_prefix + source, item, kept)
        try:
            self.connection._deliver(envelope, queue)  # noqa: SLF001  # kombu's
            if self.taken is not None:
                # Nobody acknowledges messages of this queue.
                with self.conn_or_acquire() as client:
                    client.lrem(self.taken.list, 1, self.taken.item)
        except GivenAwayError:
            logger.warning("a message was taken and given away before it could be registered")
        finally:
            self.taken = None

    def _poll_error(self, kind: str, **options: Any) -> None:
        if kind == "LISTEN":
            super()._poll_error(kind, **options)
        else:
            self._brpop_read()

    def _receive_one(self, client: Any) -> Any:
        # Without raising: no event would announce what came together with it.
        try:
            return super()._receive_one(client)
        except Empty:
            # Of JSON that is none kombu has told.
            return None
        except MALFORMED:
            logger.exception("a broadcast message cannot be read")
            return None

    def _deliver_fanout_message(self, message: Any, exchange: str) -> Any:
        return super()._deliver_fanout_message(sound(message, exchange), exchange)


class SentinelChannel(Channel, redis_transport.SentinelChannel):  # type: ignore[misc]  # no types
    """The channel on whichever server the sentinels call the master."""

    def pool_beside(self, seconds: float) -> MasterPool:
        """Connections of one's own to the master, none of which waits longer than so long."""
        return self._master_pool({**self._connparams(), "socket_timeout": seconds})

    def _sentinel_managed_pool(self, asynchronous: bool = False) -> MasterPool:
        pool = self._master_pool(self._connparams(asynchronous))
        # Where kombu looks for what it has to close.
        if asynchronous:
            self._async_sentinel_manager = pool.sentinel_manager
        else:
            self._sentinel_manager = pool.sentinel_manager
        return pool

    def _master_pool(self, options: dict[str, Any]) -> MasterPool:
        address = options.pop("host"), options.pop("port")
        parts = [urlsplit(url) for url in self.connection.client.alt]
        return master_pool(
            [(str(part.hostname), part.port or 0) for part in parts] or [address],
            self.master_name,
            sentinel_options=self.sentinel_kwargs,
            options=options,
        )


def _nothing() -> None:
    pass


class _Poller(redis_transport.MultiChannelPoller):  # type: ignore[misc]  # kombu has no types
    def _pause_brpop(self, channel: Channel, fileno: int) -> None:  # noqa: ARG002  # kombu's
        # Kombu keeps a reply that comes when no more messages are wanted, for as long as it takes.
        channel.put_back()


class Transport(redis_transport.Transport):  # type: ignore[misc]  # kombu has no types for it
    """Kombu's transport with our channels."""

    Channel = Channel

    # How long (seconds) an idle worker waits for the most urgent messages before it looks for
    # others.
    brpop_timeout = 0.2

    # An error reply, such as a replica's after a failover, ends the connection, not the worker.
    connection_errors = (*redis_transport.Transport.connection_errors, ResponseError)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cycle = _Poller()


class SentinelTransport(Transport):
    """The transport to a master that sentinels name."""

    Channel = SentinelChannel


TRANSPORTS = {"redis": Transport, "rediss": Transport, "sentinel": SentinelTransport}
"""By the scheme of a broker's URL."""
