"""What our transport leans on in kombu, and what it promises, on a real server.

Of an upgrade of kombu that takes any of it away, this is where it shows.
"""

import json
import random
import threading
import time
from base64 import b64decode
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import kombu
import kombu.transport.redis
import pytest
import redis
from celery import bootsteps

from sandbox.valkey import Valkey
from settings import Settings, load
from settings.celery import QUEUE, celery_options, worker_options
from workers.broker import heartbeat, registration, sharing, transport
from workers.broker.heartbeat import Heartbeat, renew
from workers.broker.registration import use_transports
from workers.broker.scripts import CALLS, HUNGRY, TAKERS
from workers.broker.sharing import Sharing
from workers.broker.transport import TRANSPORTS, SentinelTransport, Transport
from workers.execution.appetite import Appetite
from workers.routing.lanes import Here

pytestmark = pytest.mark.contract

OPTIONS = worker_options(Settings())["broker_transport_options"]
HUNGRY_SECONDS = transport._HUNGRY_SECONDS


class Taker:
    """A consumer of the queue, as Celery's worker has one."""

    def __init__(
        self,
        valkey: Valkey,
        no_ack: bool = False,
        queues: Iterable[str] = (QUEUE,),
        **options: Any,
    ) -> None:
        self.connection = kombu.Connection(
            valkey.url, transport=Transport, transport_options={**OPTIONS, **options}
        )
        self.channel = self.connection.channel()
        self.messages: list[Any] = []
        self.consumer = kombu.Consumer(
            self.channel,
            [kombu.Queue(queue, durable=True) for queue in queues],
            no_ack=no_ack,
            accept=["json"],
            on_message=self.messages.append,
        )
        self.consumer.consume()

    @property
    def qos(self) -> Any:
        return self.channel.qos

    def next(self) -> Any:
        while not self.messages:
            self.connection.drain_events(timeout=10)
        return self.messages.pop(0)

    def take(self) -> tuple[str, bytes]:
        """Take a message and get no further."""
        self.channel.connection.cycle.on_poll_start()
        found = self.channel._read_reply()
        assert found is not None
        return found

    def wants(self, appetite: Appetite) -> None:
        """As a worker whose keeper says so."""
        self.channel.appetite = lambda _taken: appetite

    def look(self) -> str | None:
        """Ask once, as soon as that may be, and give the name of what was taken."""
        self.channel._look_at = 0.0
        self.channel.connection.cycle.on_poll_start()
        found = self.channel._read_reply()
        if found is not None:
            self.channel._deliver(*found)
        return name(self.messages.pop(0)) if found else None

    def sweep(self) -> None:
        self.qos.restore_visible(num=None, interval=1)


class Broker:
    """The server, as a producer and as an administrator see it."""

    def __init__(self, valkey: Valkey) -> None:
        self.valkey = valkey
        self.client = redis.Redis.from_url(valkey.url, decode_responses=True)

    def send(self, *names: str, priority: int = 0, queue: str = QUEUE) -> None:
        """Enqueue messages as kombu's own transport with its defaults does."""
        with kombu.Connection(self.valkey.url, transport="kombu.transport.redis:Transport") as own:
            for name in names:
                own.Producer().publish({"name": name}, routing_key=queue, priority=priority)

    def forget(self, key: str) -> None:
        """As if nobody had renewed anything there for a long time."""
        for member in self.client.zrange(key, 0, -1):
            self.client.zadd(key, {member: 1.0})

    def hungry(self) -> dict[str, float]:
        """Which channels are marked, and until when by the server's clock."""
        return dict(self.client.zrange(HUNGRY + QUEUE, 0, -1, withscores=True))

    def waiting(self) -> list[str]:
        """What lies in the queue of the most urgent, head first."""
        bodies = [json.loads(entry)["body"] for entry in self.client.lrange(QUEUE, 0, -1)]
        return [json.loads(b64decode(body))["name"] for body in reversed(bodies)]

    def keys(self) -> set[str]:
        """All that is left, but for what is announced and how queues are bound."""
        return {k for k in self.client.scan_iter() if k != TAKERS and not k.startswith("_kombu")}


def name(message: Any) -> str:
    return str(message.decode()["name"])


@pytest.fixture
def broker(valkey: Valkey) -> Iterator[Broker]:
    one = Broker(valkey)
    yield one
    one.client.close()


@pytest.fixture
def taker(valkey: Valkey) -> Iterator[Taker]:
    one = Taker(valkey)
    yield one
    one.connection.close()


@pytest.fixture
def other(valkey: Valkey) -> Iterator[Taker]:
    one = Taker(valkey)
    yield one
    one.connection.close()


def test_a_message_is_registered_until_it_is_acknowledged(broker: Broker, taker: Taker) -> None:
    broker.send("a")
    message = taker.next()
    index, unacked = taker.qos.unacked_index_key, taker.qos.unacked_key
    assert (index, unacked) == (OPTIONS["unacked_index_key"], OPTIONS["unacked_key"])
    assert broker.client.zrange(index, 0, -1) == [message.delivery_tag]
    assert list(taker.qos._delivered) == taker.qos.held() == [message.delivery_tag]
    envelope, exchange, routing_key = json.loads(
        broker.client.hget(unacked, message.delivery_tag) or ""
    )
    assert envelope["properties"]["delivery_tag"] == message.delivery_tag
    assert (exchange, routing_key) == ("", QUEUE)
    assert broker.keys() == {index, unacked}

    message.ack()
    assert broker.keys() == set()
    # Kombu forgets it with the next one.
    assert taker.qos.held() == []


def test_a_beat_renews_what_is_held_and_nothing_else(broker: Broker, taker: Taker) -> None:
    broker.send("a", "b", "c")
    held, settled, given_back = taker.next(), taker.next(), taker.next()
    settled.ack()
    given_back.requeue()
    index = taker.qos.unacked_index_key
    # Another worker has it now, with the same tag.
    broker.client.zadd(index, {given_back.delivery_tag: 1.0})
    broker.forget(index)
    broker.forget(TAKERS)
    before = broker.client.time()[0]
    renew(taker.channel, broker.client)
    after = broker.client.time()[0] + 1
    scores = dict(broker.client.zrange(index, 0, -1, withscores=True))
    assert scores.keys() == {held.delivery_tag, given_back.delivery_tag}
    assert before <= scores[held.delivery_tag] <= after
    assert scores[given_back.delivery_tag] == 1.0
    takers = dict(broker.client.zrange(TAKERS, 0, -1, withscores=True))
    assert takers
    assert all(before <= score <= after for score in takers.values())


def test_a_beat_is_one_round_trip_for_many_messages(
    broker: Broker, taker: Taker, monkeypatch: pytest.MonkeyPatch
) -> None:
    tags = {f"tag-{number}": 1.0 for number in range(2500)}
    broker.client.zadd(taker.qos.unacked_index_key, tags)
    monkeypatch.setattr(taker.qos, "_delivered", dict.fromkeys(tags))
    renew(taker.channel, broker.client)
    assert broker.client.zcount(taker.qos.unacked_index_key, 0, 2) == 0
    monkeypatch.undo()


def test_only_what_nobody_renews_is_put_back(broker: Broker, taker: Taker, other: Taker) -> None:
    broker.send("a", "b")
    first, second = taker.next(), taker.next()
    other.sweep()
    assert broker.waiting() == []
    broker.forget(taker.qos.unacked_index_key)
    renew(taker.channel, broker.client)
    other.sweep()
    assert broker.waiting() == []
    broker.client.zadd(taker.qos.unacked_index_key, {first.delivery_tag: 1.0})
    # Who still holds it takes it from nobody.
    taker.sweep()
    assert broker.waiting() == []
    other.sweep()
    other.sweep()
    assert broker.waiting() == ["a"]
    assert broker.client.hkeys(taker.qos.unacked_key) == [second.delivery_tag]
    again = other.next()
    assert name(again) == "a"
    assert again.headers["redelivered"]
    assert again.delivery_info["redelivered"]


def test_what_is_given_back_is_next(broker: Broker, taker: Taker) -> None:
    broker.send("a", "b", "c")
    taker.next().requeue()
    assert broker.waiting() == ["a", "b", "c"]


def test_what_a_leaving_consumer_holds_is_next_and_in_order(broker: Broker, valkey: Valkey) -> None:
    broker.send("a", "b", "c", "d")
    leaving = Taker(valkey)
    assert [name(leaving.next()) for _ in range(3)] == ["a", "b", "c"]
    leaving.take()
    leaving.connection.close()
    assert broker.waiting() == ["a", "b", "c", "d"]
    assert broker.keys() == {QUEUE}


def test_a_consumer_that_is_cancelled_keeps_nothing(broker: Broker, taker: Taker) -> None:
    # The reply to this brings the message.
    taker.channel.connection.cycle.on_poll_start()
    broker.send("a")
    taker.consumer.cancel()
    assert broker.waiting() == ["a"]
    taker.consumer.consume()
    assert name(taker.next()) == "a"


def test_a_consumer_without_credit_keeps_nothing(broker: Broker, taker: Taker) -> None:
    broker.send("a", "b")
    taker.channel.basic_qos(0, 1, False)
    first = taker.next()
    taker.channel.basic_qos(0, 2, False)
    taker.channel.connection.cycle.on_poll_start()
    taker.channel.basic_qos(0, 1, False)
    with pytest.raises(TimeoutError):
        taker.connection.drain_events(timeout=0.3)
    assert broker.waiting() == ["b"]
    first.ack()
    assert name(taker.next()) == "b"


def test_the_most_urgent_is_next(broker: Broker, taker: Taker) -> None:
    # Zero is the most urgent on Redis.
    for priority in (9, 6, 3, 0, 4):
        broker.send(f"{priority} first", f"{priority} second", priority=priority)
    order = [name(taker.next()) for _ in range(10)]
    assert [text[0] for text in order] == list("0033446699")
    assert order == sorted(order)


def test_an_idle_consumer_hears_of_every_priority(broker: Broker, taker: Taker) -> None:
    for priority in (0, 9):
        with pytest.raises(TimeoutError):
            taker.connection.drain_events(timeout=0.3)
        broker.send("a", priority=priority)
        began = time.monotonic()
        taker.next().ack()
        assert time.monotonic() - began < 5


@pytest.mark.parametrize("priority", [0, 6])
def test_what_was_taken_and_not_registered_comes_again_once(
    broker: Broker, taker: Taker, other: Taker, priority: int
) -> None:
    broker.send("a", "b", priority=priority)
    taken = taker.take()
    other.sweep()
    assert name(other.next()) == "b"
    broker.forget(TAKERS)
    other.sweep()
    other.sweep()
    assert name(other.next()) == "a"
    # Whoever took it first and was only slow has lost it.
    taker.channel._deliver(*taken)
    assert taker.messages == []
    assert taker.qos.held() == []
    assert broker.client.hlen(taker.qos.unacked_key) == 2


def test_what_was_taken_and_not_registered_is_back_at_the_head(
    broker: Broker, taker: Taker, other: Taker
) -> None:
    broker.send("a", "b", "c")
    taker.take()
    assert broker.waiting() == ["b", "c"]
    broker.forget(TAKERS)
    other.sweep()
    assert broker.waiting() == ["a", "b", "c"]


@pytest.mark.parametrize("same", [True, False], ids=["same-consumer", "next-consumer"])
def test_a_server_that_dies_between_the_two_steps_loses_nothing(
    broker: Broker, taker: Taker, other: Taker, valkey: Valkey, same: bool
) -> None:
    # Its default answers for the last second without a promise.
    broker.client.config_set("appendfsync", "always")
    broker.send("a", "b")
    taken = taker.take()
    valkey.kill()
    with pytest.raises(taker.connection.connection_errors):
        taker.channel._deliver(*taken)
    assert taker.messages == []
    valkey.start()
    if same:
        with pytest.raises(taker.connection.connection_errors):
            taker.next()
        assert [name(taker.next()), name(taker.next())] == ["a", "b"]
    else:
        broker.forget(TAKERS)
        other.sweep()
        assert [name(other.next()), name(other.next())] == ["a", "b"]
    assert broker.client.hlen(taker.qos.unacked_key) == 2


def test_a_lost_reply_is_asked_for_again(broker: Broker, taker: Taker) -> None:
    broker.send("a", "b")
    taker.channel.connection.cycle.on_poll_start()
    taker.channel.client.connection.disconnect()
    assert [name(taker.next()), name(taker.next())] == ["a", "b"]


def test_a_full_server_loses_nothing_and_gets_emptier(broker: Broker, taker: Taker) -> None:
    broker.send("a", "b")
    broker.client.config_set("maxmemory", 1)
    with pytest.raises(redis.exceptions.OutOfMemoryError):
        broker.client.set("x", "y")
    message = taker.next()
    renew(taker.channel, broker.client)
    message.requeue()
    for expected in ("a", "b"):
        message = taker.next()
        assert name(message) == expected
        message.ack()
    assert broker.keys() == set()
    # It can neither wait as usual nor end by that.
    before = broker.client.info("commandstats")["cmdstat_eval"]["calls"]
    with pytest.raises(TimeoutError):
        taker.connection.drain_events(timeout=1)
    assert broker.client.info("commandstats")["cmdstat_eval"]["calls"] - before < 10
    broker.client.config_set("maxmemory", 0)
    broker.send("c")
    assert name(taker.next()) == "c"


def test_an_entry_that_is_no_message_is_gone_when_refused(broker: Broker, taker: Taker) -> None:
    for entry in ("{{{", "5", b"\xff\xfe\x00", "", '{"properties": {"delivery_tag": "\\ud800"}}'):
        broker.client.lpush(QUEUE, entry)
        message = taker.next()
        with pytest.raises(kombu.exceptions.ContentDisallowed):
            message.decode()
        message.reject()
        assert broker.keys() == set()


def test_a_refused_entry_can_be_given_back(broker: Broker, taker: Taker, other: Taker) -> None:
    broker.client.lpush(QUEUE, "{{{")
    taker.next().requeue()
    assert other.next().body == b"{{{"


def test_nothing_is_registered_that_nobody_acknowledges(broker: Broker, valkey: Valkey) -> None:
    listener = Taker(valkey, no_ack=True)
    broker.send("a", "b")
    assert [name(listener.next()), name(listener.next())] == ["a", "b"]
    assert broker.keys() == set()
    listener.connection.close()


def test_a_broadcast_that_is_no_message_is_passed_over(broker: Broker, valkey: Valkey) -> None:
    with kombu.Connection(valkey.url, transport=Transport) as connection:
        messages: list[Any] = []
        ears = kombu.Queue("ears", kombu.Exchange("all", type="fanout"))
        with kombu.Consumer(connection, [ears], no_ack=True, on_message=messages.append):
            # The first event: the server listens.
            connection.drain_events(timeout=10)
            for entry in ("{{{", "5", '{"__type__": "decimal", "__value__": "zz"}'):
                assert broker.client.publish("/0.all", entry) == 1
            connection.Producer().publish({"name": "a"}, exchange="all")
            while not messages or messages[-1].content_type != "application/json":
                connection.drain_events(timeout=10)
    assert name(messages[-1]) == "a"


# Who may take what


AHEAD, HUNGER = Appetite.AHEAD, Appetite.HUNGER


class Ear:
    """Hears the calls of hungry channels."""

    def __init__(self, broker: Broker) -> None:
        self._client = broker.client
        self._pubsub = broker.client.pubsub()
        self._pubsub.subscribe(CALLS)
        # Until the server has confirmed it.
        assert self._pubsub.get_message(timeout=10)

    def heard(self) -> list[str]:
        """Who has called since it was asked last."""
        self._client.publish(CALLS, "that is all")
        calls = []
        while "that is all" not in calls:
            if message := self._pubsub.get_message(timeout=10):
                calls.append(message["data"])
        return calls[:-1]

    def close(self) -> None:
        self._pubsub.close()


@pytest.fixture
def ear(broker: Broker) -> Iterator[Ear]:
    one = Ear(broker)
    yield one
    one.close()


def commands(broker: Broker, command: str) -> int:
    return broker.client.info("commandstats").get(f"cmdstat_{command}", {}).get("calls", 0)


def test_who_only_takes_ahead_leaves_messages_to_who_is_hungry(
    broker: Broker, taker: Taker, other: Taker
) -> None:
    other.wants(HUNGER)
    assert other.look() is None
    taker.wants(AHEAD)
    broker.send("a", "b")
    assert taker.look() is None
    assert broker.waiting() == ["a", "b"]
    assert other.look() == "a"


def test_who_only_takes_ahead_takes_what_nobody_is_hungry_for(
    broker: Broker, taker: Taker, other: Taker
) -> None:
    for one in (taker, other):
        one.wants(AHEAD)
        assert one.look() is None
    broker.send("a", "b")
    assert (taker.look(), other.look()) == ("a", "b")
    assert broker.hungry() == {}


def test_among_the_hungry_the_first_one_takes(broker: Broker, taker: Taker, other: Taker) -> None:
    for one in (taker, other):
        one.wants(HUNGER)
        assert one.look() is None
    broker.send("a", "b", priority=3)
    # Neither waits for messages of this priority.
    assert (other.look(), taker.look()) == (None, None)
    assert (other.look(), taker.look()) == ("a", "b")


def test_who_has_been_hungry_may_take_ahead_himself(broker: Broker, taker: Taker) -> None:
    taker.wants(HUNGER)
    assert taker.look() is None
    broker.send("a")
    taker.wants(AHEAD)
    assert taker.look() == "a"


def test_who_is_no_longer_hungry_holds_up_nobody(
    broker: Broker, taker: Taker, other: Taker
) -> None:
    # It was given a message for which it waited.
    taker.wants(HUNGER)
    assert taker.look() is None
    broker.send("a", "b")
    assert taker.look() == "a"
    taker.wants(AHEAD)
    assert taker.look() == "b"
    assert broker.hungry() == {}
    broker.send("c")
    other.wants(AHEAD)
    assert other.look() == "c"


def test_a_queue_that_nobody_else_is_hungry_for_is_taken_from(
    broker: Broker, valkey: Valkey, other: Taker
) -> None:
    both = Taker(valkey, queues=(QUEUE, "others"))
    other.wants(HUNGER)
    assert other.look() is None
    broker.send("a")
    broker.send("b", "c", queue="others")
    both.wants(AHEAD)
    # Whatever the order in which kombu has it look.
    assert (both.look(), both.look(), both.look()) == ("b", "c", None)
    assert other.look() == "a"
    both.connection.close()


def test_two_who_are_hungry_are_more_than_oneself(
    broker: Broker, taker: Taker, other: Taker
) -> None:
    for one in (taker, other):
        one.wants(HUNGER)
        assert one.look() is None
    broker.send("a")
    taker.wants(AHEAD)
    assert taker.look() is None
    assert other.look() == "a"


def test_who_has_taken_a_message_is_not_hungry_any_more(broker: Broker, taker: Taker) -> None:
    taker.wants(HUNGER)
    assert taker.look() is None
    assert broker.hungry().keys() == {taker.channel.among_hungry}
    broker.send("a", priority=3)
    assert taker.look() is None
    assert taker.look() == "a"
    assert broker.hungry() == {}


def test_a_mark_that_ran_out_does_not_count(broker: Broker, taker: Taker, other: Taker) -> None:
    other.wants(HUNGER)
    assert other.look() is None
    broker.forget(HUNGRY + QUEUE)
    broker.send("a")
    taker.wants(AHEAD)
    assert taker.look() == "a"
    taker.wants(HUNGER)
    assert taker.look() is None
    # Nor is it kept.
    assert broker.hungry().keys() == {taker.channel.among_hungry}


def test_a_mark_holds_for_longer_than_until_the_next_look(broker: Broker, taker: Taker) -> None:
    taker.wants(HUNGER)
    before = time.monotonic()
    for _ in range(3):
        assert taker.look() is None
    # A look, a wait and a look.
    seconds, micros = broker.client.time()
    now = seconds + micros / 1e6
    rest = broker.hungry()[taker.channel.among_hungry] - now
    assert 0 < rest <= transport._HUNGRY_SECONDS
    assert rest > transport._HUNGRY_SECONDS - (time.monotonic() - before)
    assert 2 * Transport.brpop_timeout < HUNGRY_SECONDS


def test_a_hungry_one_calls_once_and_again_when_its_mark_ran_out(
    broker: Broker, taker: Taker, other: Taker, ear: Ear
) -> None:
    def look_again() -> None:
        # In between it waits.
        taker.channel._next = transport._Ask.LOOK
        assert taker.look() is None

    taker.wants(HUNGER)
    for _ in range(3):
        look_again()
    assert ear.heard() == [taker.channel.among_hungry]
    other.wants(HUNGER)
    assert other.look() is None
    assert ear.heard() == [other.channel.among_hungry]
    broker.forget(HUNGRY + QUEUE)
    look_again()
    assert ear.heard() == [taker.channel.among_hungry]
    # One that got a message and has become hungry once more calls once more.
    broker.send("a")
    taker.channel._next = transport._Ask.LOOK
    assert taker.look() == "a"
    look_again()
    assert ear.heard() == [taker.channel.among_hungry]


def test_who_finds_something_or_only_takes_ahead_does_not_call(
    broker: Broker, taker: Taker, other: Taker, ear: Ear
) -> None:
    broker.send("a")
    taker.wants(HUNGER)
    assert taker.look() == "a"
    other.wants(AHEAD)
    assert other.look() is None
    assert (ear.heard(), broker.hungry()) == ([], {})


def test_only_who_is_hungry_waits_and_that_for_the_most_urgent(
    broker: Broker, taker: Taker, other: Taker
) -> None:
    taker.wants(HUNGER)
    assert taker.look() is None
    assert commands(broker, "blmove") == 0
    other.wants(AHEAD)
    for _ in range(3):
        assert other.look() is None
    assert commands(broker, "blmove") == 0
    taker.channel.brpop_timeout = 30
    taker.channel.connection.cycle.on_poll_start()
    until(lambda: broker.client.info("clients")["blocked_clients"])
    broker.send("less urgent", priority=3)
    broker.send("most urgent")
    found = taker.channel._read_reply()
    assert found is not None
    taker.channel._deliver(*found)
    assert name(taker.messages.pop()) == "most urgent"
    assert commands(broker, "blmove") == 1
    # Who has had enough meanwhile waits no longer.
    taker.wants(HUNGER)
    assert taker.look() == "less urgent"
    assert taker.look() is None
    taker.wants(AHEAD)
    assert taker.look() is None
    assert commands(broker, "blmove") == 1


def test_who_wants_nothing_asks_for_nothing(broker: Broker, taker: Taker) -> None:
    broker.send("a")
    taker.wants(Appetite.NONE)
    with pytest.raises(TimeoutError):
        taker.connection.drain_events(timeout=0.3)
    # Not even to give it back.
    assert (commands(broker, "rpop"), commands(broker, "blmove")) == (0, 0)
    assert broker.waiting() == ["a"]
    taker.wants(HUNGER)
    assert name(taker.next()) == "a"
    assert commands(broker, "rpop") == 1


def test_who_has_had_enough_gives_back_what_it_asked_for(broker: Broker, taker: Taker) -> None:
    taker.wants(HUNGER)
    taker.channel.connection.cycle.on_poll_start()
    broker.send("a")
    taker.wants(Appetite.NONE)
    with pytest.raises(TimeoutError):
        taker.connection.drain_events(timeout=0.3)
    assert broker.waiting() == ["a"]
    assert not taker.channel._in_poll


def test_who_only_takes_ahead_looks_now_and_then(
    broker: Broker, taker: Taker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "_AHEAD_SECONDS", 3600.0)
    taker.wants(AHEAD)
    with pytest.raises(TimeoutError):
        taker.connection.drain_events(timeout=0.3)
    broker.send("a")
    with pytest.raises(TimeoutError):
        taker.connection.drain_events(timeout=0.3)
    assert broker.waiting() == ["a"]
    # At once if there is nothing left to do.
    taker.wants(HUNGER)
    assert name(taker.next()) == "a"
    monkeypatch.setattr(transport, "_AHEAD_SECONDS", 0.01)
    taker.wants(AHEAD)
    taker.channel._look_at = 0.0
    with pytest.raises(TimeoutError):
        taker.connection.drain_events(timeout=0.3)
    broker.send("b")
    assert name(taker.next()) == "b"


def test_the_worker_is_asked_with_what_it_holds_and_what_waits_for_its_time_left_out(
    broker: Broker, taker: Taker
) -> None:
    asked: list[int] = []

    def appetite(taken: int) -> Appetite:
        asked.append(taken)
        return HUNGER

    broker.send("a", "b", "c", "d")
    taker.channel.appetite, taker.channel.slots = appetite, 2
    # Of a worker with two slots three messages wait for their time.
    taker.channel.basic_qos(0, 2 + 3, False)
    messages = [taker.next() for _ in range(4)]
    assert taker.qos.can_consume()
    assert asked[-1] == 4 - 3
    messages[0].ack()
    assert taker.qos.can_consume()
    assert asked[-1] == 3 - 3
    # Its credit is kombu's to count.
    taker.channel.basic_qos(0, 2, False)
    asked.clear()
    assert not taker.qos.can_consume()
    assert asked == []


@pytest.mark.parametrize("appetite", [AHEAD, HUNGER])
def test_what_was_taken_before_comes_first_whoever_is_hungry(
    broker: Broker, taker: Taker, other: Taker, appetite: Appetite
) -> None:
    broker.send("a", "b")
    # The reply got lost.
    taker.take()
    other.wants(HUNGER)
    assert other.look() == "b"
    assert other.look() is None
    taker.wants(appetite)
    assert taker.look() == "a"


# Whom a worker gives a job to


class Keeper:
    """A worker's keeper with one job to spare, or none."""

    def __init__(self) -> None:
        self.spare: Any = SimpleNamespace(here=Here())
        self.handed_over: list[object] = []
        self.listeners: list[Callable[[], None]] = []

    def appetite(self, _: int) -> Appetite:
        return AHEAD

    def subscribe(self, on_idle: Callable[[], None]) -> None:
        self.listeners.append(on_idle)

    def hand_over(self, lease: object) -> None:
        self.handed_over.append(lease)


class Giver:
    """A worker with a channel, which may have something to give."""

    def __init__(self, taker: Taker) -> None:
        self.taker = taker
        self.keeper = Keeper()
        self.woken: list[Callable[[], None]] = []
        self.consumer = SimpleNamespace(
            connection=taker.connection,
            task_consumer=taker.consumer,
            controller=SimpleNamespace(
                keeper=self.keeper,
                router=SimpleNamespace(
                    digest="able", models="", wait_seconds=30.0, returning_seconds=0.0
                ),
                concurrency=7,
            ),
            call_soon=self.woken.append,
            blueprint=SimpleNamespace(state=bootsteps.RUN),
        )
        self.sharing = Sharing(self.consumer)

    def answer(self, broker: Broker) -> bool:
        """Whether a job is given away when this worker hears a call."""
        before = len(self.keeper.handed_over)
        self.sharing._answer(self.taker.channel, broker.client)
        return len(self.keeper.handed_over) > before


@pytest.fixture
def giver(broker: Broker, taker: Taker) -> Iterator[Giver]:
    one = Giver(taker)
    yield one
    one.sharing.shutdown(one.consumer)

    def is_deaf() -> bool:
        broker.client.publish(CALLS, "whoever waits for a call")
        return all(thread.name != "sharing" for thread in threading.enumerate())

    # No other test must find its thread.
    until(is_deaf)


def test_a_hungry_one_is_served_once_in_a_while(
    broker: Broker, giver: Giver, other: Taker, valkey: Valkey
) -> None:
    other.wants(HUNGER)
    assert other.look() is None
    assert giver.answer(broker)
    assert giver.keeper.handed_over == [giver.keeper.spare]
    assert not giver.answer(broker)
    third = Taker(valkey)
    # Nor does anybody else.
    assert not Giver(third).answer(broker)
    served = f"{HUNGRY}{QUEUE}:{other.channel.among_hungry}"
    assert 0 < broker.client.pttl(served) <= sharing._SERVED_MS
    # As when that time is over.
    broker.client.delete(served)
    broker.client.zadd(HUNGRY + QUEUE, {other.channel.among_hungry: 2.0**40})
    assert Giver(third).answer(broker)
    assert not giver.answer(broker)
    third.connection.close()


def test_two_hungry_ones_are_served_both(broker: Broker, giver: Giver) -> None:
    broker.client.zadd(HUNGRY + QUEUE, {"one": 2.0**40, "another": 2.0**40})
    assert [giver.answer(broker) for _ in range(3)] == [True, True, False]


def test_nobody_is_served_who_is_not_hungry(broker: Broker, giver: Giver, other: Taker) -> None:
    assert not giver.answer(broker)
    # Itself: what it has to spare it could not begin either.
    giver.taker.wants(HUNGER)
    assert giver.taker.look() is None
    assert not giver.answer(broker)
    other.wants(HUNGER)
    assert other.look() is None
    broker.forget(HUNGRY + QUEUE)
    assert not giver.answer(broker)


def test_who_takes_from_other_queues_is_not_served(broker: Broker, giver: Giver) -> None:
    broker.client.zadd(f"{HUNGRY}others", {"one": 2.0**40})
    assert not giver.answer(broker)
    giver.taker.consumer.cancel()
    broker.client.zadd(HUNGRY + QUEUE, {"one": 2.0**40})
    assert not giver.answer(broker)


def test_who_has_nothing_to_give_leaves_it_to_others(
    broker: Broker, giver: Giver, other: Taker
) -> None:
    broker.client.zadd(HUNGRY + QUEUE, {"one": 2.0**40})
    giver.keeper.spare = None
    assert not giver.answer(broker)
    assert Giver(other).answer(broker)


def listens(broker: Broker) -> bool:
    return dict(broker.client.pubsub_numsub(CALLS))[CALLS] == 1


def test_a_call_is_answered_at_once(
    broker: Broker, giver: Giver, other: Taker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "_MISSED_SECONDS", 3600.0)
    giver.sharing.start(giver.consumer)
    assert giver.taker.channel.appetite == giver.keeper.appetite
    assert giver.taker.channel.slots == 7
    until(lambda: listens(broker))
    other.wants(HUNGER)
    assert other.look() is None
    until(lambda: giver.keeper.handed_over)
    giver.sharing.stop(giver.consumer)


def test_a_call_that_was_missed_is_answered_soon(
    broker: Broker, giver: Giver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "_MISSED_SECONDS", 0.05)
    giver.sharing.start(giver.consumer)
    until(lambda: listens(broker))
    # Nobody calls.
    broker.client.zadd(HUNGRY + QUEUE, {"one": 2.0**40})
    until(lambda: giver.keeper.handed_over)
    giver.sharing.stop(giver.consumer)
    until(lambda: not listens(broker))


def test_the_ear_for_calls_outlives_the_broker(
    broker: Broker, giver: Giver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "_MISSED_SECONDS", 0.05)
    giver.sharing.start(giver.consumer)
    until(lambda: listens(broker))
    broker.valkey.stop()
    broker.valkey.start()
    until(lambda: listens(broker))
    broker.client.zadd(HUNGRY + QUEUE, {"one": 2.0**40})
    until(lambda: giver.keeper.handed_over)
    giver.sharing.stop(giver.consumer)


def test_a_worker_that_ends_still_gives_what_it_has_no_time_for(
    broker: Broker, giver: Giver
) -> None:
    giver.sharing.start(giver.consumer)
    until(lambda: broker.client.pubsub_numsub(CALLS)[0][1] == 1)
    giver.consumer.blueprint.state = bootsteps.CLOSE
    giver.sharing.stop(giver.consumer)
    broker.client.zadd(HUNGRY + QUEUE, {"one": 2.0**40})
    broker.client.publish(CALLS, "one")
    until(lambda: giver.keeper.handed_over)
    giver.sharing.shutdown(giver.consumer)
    until(lambda: all(thread.name != "sharing" for thread in threading.enumerate()))


def test_whatever_is_wrong_calls_are_heard_again(
    broker: Broker, giver: Giver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sharing, "_MISSED_SECONDS", 0.05)
    failures = iter(range(3))
    answer = sharing.Sharing._answer

    def fail_at_first(*args: Any) -> None:
        if next(failures, None) is not None:
            raise AttributeError("a channel that closes just then")
        answer(*args)

    monkeypatch.setattr(sharing.Sharing, "_answer", fail_at_first)
    broker.client.zadd(HUNGRY + QUEUE, {"one": 2.0**40})
    giver.sharing.start(giver.consumer)
    until(lambda: giver.keeper.handed_over)
    giver.sharing.stop(giver.consumer)
    until(lambda: all(thread.name != "sharing" for thread in threading.enumerate()))
    assert sum("are not heard" in record.message for record in caplog.records) == 1


def test_another_broker_has_no_calls(giver: Giver) -> None:
    giver.consumer.connection = SimpleNamespace(transport=SimpleNamespace(driver_type="amqp"))
    giver.sharing.start(giver.consumer)
    assert all(thread.name != "sharing" for thread in threading.enumerate())
    giver.sharing.stop(giver.consumer)


def test_the_loop_is_woken_when_the_gpu_has_done_with_a_job(giver: Giver) -> None:
    (on_idle,) = giver.keeper.listeners
    on_idle()
    # All that it does is to wake.
    assert [wake() for wake in giver.woken] == [None]


# Connections that are cut


class Competitor(threading.Thread):
    """Takes and acknowledges until all have been delivered, whatever happens to its connections."""

    def __init__(
        self, valkey: Valkey, delivered: Counter[str], total: int, progress: threading.Semaphore
    ) -> None:
        super().__init__(daemon=True)
        self.valkey, self.delivered, self.total = valkey, delivered, total
        self.progress = progress

    def run(self) -> None:
        while len(self.delivered) < self.total:
            with suppress(*Transport.connection_errors):
                self.consume(Taker(self.valkey, visibility_timeout=1))

    def consume(self, taker: Taker) -> None:
        try:
            while len(self.delivered) < self.total:
                with suppress(TimeoutError):
                    taker.connection.drain_events(timeout=0.3)
                while taker.messages:
                    message = taker.messages.pop(0)
                    self.delivered[name(message)] += 1
                    self.progress.release()
                    message.ack()
                taker.sweep()
        finally:
            # As our consumer: what it holds comes again when it is overdue.
            taker.channel.do_restore = False
            taker.connection.close()


def test_no_message_is_lost_by_connections_that_are_cut(broker: Broker, valkey: Valkey) -> None:
    total = 500
    delivered: Counter[str] = Counter()
    progress = threading.Semaphore(0)
    competitors = [Competitor(valkey, delivered, total, progress) for _ in range(2)]
    broker.send(*(f"{number}" for number in range(total)))
    for competitor in competitors:
        competitor.start()
    cuts = 0
    own = broker.client.client_id()
    chance = random.Random(1)
    while any(competitor.is_alive() for competitor in competitors):
        # They get somewhere before one is cut off again.
        if all(progress.acquire(timeout=1) for _ in range(4)):
            others = [c["id"] for c in broker.client.client_list() if int(c["id"]) != own]
            cuts += broker.client.client_kill_filter(_id=chance.choice(others)) if others else 0
    print(f"{cuts} cuts, {delivered.total() - total} messages came twice")
    assert cuts > 20
    assert len(delivered) == total


@pytest.fixture
def beats(taker: Taker, monkeypatch: pytest.MonkeyPatch) -> Iterator[Heartbeat]:
    monkeypatch.setattr(heartbeat, "INTERVAL", 0.02)
    # An answer may take longer than that.
    monkeypatch.setattr(
        heartbeat, "client_beside", lambda channel: redis.Redis.from_pool(channel.pool_beside(10.0))
    )
    consumer = SimpleNamespace(
        connection=taker.connection,
        task_consumer=taker.consumer,
        blueprint=SimpleNamespace(state=bootsteps.RUN),
    )
    one = Heartbeat(consumer)
    assert consumer.message_heartbeat is one
    one.start(consumer)
    yield one
    one.shutdown(consumer)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_heartbeat_outlives_the_broker_and_says_so_once(
    broker: Broker, taker: Taker, beats: Heartbeat, caplog: pytest.LogCaptureFixture
) -> None:
    index = taker.qos.unacked_index_key
    broker.send("a")
    taker.next()
    broker.forget(index)
    until(lambda: broker.client.zcount(index, 2, "+inf") == 1)
    broker.valkey.stop()
    until(lambda: "no sign of life" in caplog.text)
    last = beats.succeeded_at
    assert last is not None
    broker.valkey.start()
    until(lambda: beats.succeeded_at != last)
    broker.forget(index)
    until(lambda: broker.client.zcount(index, 2, "+inf") == 1)
    told = [record.message for record in caplog.records if record.name == heartbeat.__name__]
    # Once for each time that it is away, not for each beat: just started it may refuse once more.
    assert len(told) in (2, 4)
    assert {one.partition(":")[0] for one in told[::2]} == {"the broker gets no sign of life"}
    assert set(told[1::2]) == {"the broker gets signs of life again"}


def test_the_heartbeat_ends_with_its_connection(beats: Heartbeat) -> None:
    until(lambda: beats.succeeded_at)
    assert any(thread.name == "heartbeat" for thread in threading.enumerate())
    consumer = SimpleNamespace(blueprint=SimpleNamespace(state=bootsteps.CLOSE))
    # Jobs still run: it goes on.
    beats.stop(consumer)
    last = beats.succeeded_at
    until(lambda: beats.succeeded_at != last)
    consumer.blueprint.state = bootsteps.RUN
    beats.stop(consumer)
    until(lambda: all(thread.name != "heartbeat" for thread in threading.enumerate()))


def test_only_a_process_that_asks_for_it_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kombu.transport, "TRANSPORT_ALIASES", {**kombu.transport.TRANSPORT_ALIASES})
    monkeypatch.setattr(kombu.transport, "_transport_cache", {})
    bounds: list[int] = []
    for name in ("read_plain_json", "bound_decompression"):
        monkeypatch.setattr(registration, name, bounds.append)
    ours = {"redis": Transport, "rediss": Transport, "sentinel": SentinelTransport}
    assert all(kombu.transport.get_transport_cls(s) is not one for s, one in ours.items())
    use_transports(TRANSPORTS, most_body_bytes=7, most_body_values=5)
    assert bounds == [5, 7]
    assert all(kombu.transport.get_transport_cls(s) is one for s, one in ours.items())


def test_kombu_knows_the_options_and_producers_do_not() -> None:
    assert OPTIONS.keys() <= set(kombu.transport.redis.Channel.from_transport_options)
    producers = celery_options(load())["broker_transport_options"]
    assert producers.keys() == {"socket_timeout", "socket_connect_timeout"}
