"""What a channel takes from RabbitMQ and gives back to it; RabbitMQ is played."""

import threading
from collections import defaultdict, deque
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import amqp
import pytest
from amqp.exceptions import MessageNacked
from kombu.transport import pyamqp
from redis.exceptions import ConnectionError as RedisConnectionError

from workers.broker.rabbitmq.channel import Channel
from workers.broker.rabbitmq.lanes import LaneQueue
from workers.broker.transport import LANE, UNABLE
from workers.execution.appetite import Appetite
from workers.routing.lanes import Lane

QUEUES = ("comfyui.urgent", "comfyui", "comfyui.batch")


class Played:
    """RabbitMQ, as one channel sees it: queues, consumers, and what was done, in order."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.channels: dict[int, Any] = {}
        self.confirm_publish = False
        self.done: list[tuple[Any, ...]] = []
        self.queues: dict[str, deque[amqp.Message]] = defaultdict(deque)
        self.consumers: dict[str, tuple[str, Any, int]] = {}
        self.refusal: Exception | None = None
        self.declared: list[str] = []
        self.tags = 0

    def _get_free_channel_id(self) -> int:
        return len(self.channels) + 1

    def answering(self) -> Any:
        return nullcontext()

    def read_on(self, _hub: Any) -> None:
        pass

    def channel(self) -> Any:
        return SimpleNamespace(basic_publish=self.publish)

    def publish(self, message: amqp.Message, *, routing_key: str, mandatory: bool) -> None:
        assert mandatory
        if self.refusal is not None:
            raise self.refusal
        self.done.append(("send", routing_key))
        self.queues[routing_key].append(message)

    def put(self, queue: str, headers: Any = None) -> amqp.Message:
        message = amqp.Message("{}", application_headers=headers)
        self.queues[queue].append(message)
        return message

    def take(self, message: amqp.Message) -> amqp.Message:
        self.tags += 1
        message.delivery_info = {"delivery_tag": self.tags, "redelivered": False}
        return message

    def deliver(self, queue: str, headers: Any = None) -> amqp.Message:
        """Have a message come to the consumer of a queue."""
        message = self.take(amqp.Message("{}", application_headers=headers))
        (on_message,) = [one for name, one, _ in self.consumers.values() if name == queue]
        on_message(message)
        return message

    def listening(self) -> dict[str, int]:
        """As whom each queue is listened at."""
        return {queue: priority for queue, _, priority in self.consumers.values()}


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Played:
    played = Played()

    def get(_: Any, queue: str) -> amqp.Message | None:
        played.done.append(("get", queue))
        waiting = played.queues[queue]
        return played.take(waiting.popleft()) if waiting else None

    def consume(_: Any, queue: str, **options: Any) -> None:
        played.done.append(("consume", queue))
        priority = options["arguments"]["x-priority"]
        played.consumers[options["consumer_tag"]] = (queue, options["callback"], priority)

    def cancel(_: Any, tag: str) -> None:
        played.done.append(("cancel", played.consumers.pop(tag)[0]))

    def settle(kind: str) -> Any:
        return lambda _, tag, *more, **__: played.done.append((kind, tag, *more))

    for name, does in {
        "basic_get": get,
        "basic_consume": consume,
        "basic_cancel": cancel,
        "basic_ack": settle("ack"),
        "basic_reject": settle("reject"),
        "basic_qos": lambda *_: None,
    }.items():
        monkeypatch.setattr(pyamqp.Channel, name, does, raising=False)
    monkeypatch.setattr(
        Channel, "queue_declare", lambda _, queue, **__: played.declared.append(queue)
    )
    return played


class Taker:
    """A channel with an appetite, and what it was given."""

    def __init__(self, broker: Played, slots: int = 4) -> None:
        self.given: list[amqp.Message] = []
        self.wants = Appetite.HUNGER
        self.added: list[LaneQueue] = []
        self.channel = Channel(broker)
        self.channel.basic_qos(0, slots, False)
        self.channel.slots = slots
        self.channel.appetite = lambda taken: Appetite.NONE if taken else self.wants
        self.channel.add_lane = self.added.append
        for queue in QUEUES:
            self.channel.basic_consume(queue, consumer_tag=f"of {queue}", callback=self.take)

    def take(self, raw: amqp.Message) -> None:
        self.given.append(raw)


@pytest.fixture
def taker(broker: Played) -> Taker:
    return Taker(broker)


def test_without_appetite_nothing_is_asked_for(broker: Played, taker: Taker) -> None:
    broker.put("comfyui")
    taker.wants = Appetite.NONE
    taker.channel.tick()
    assert (broker.done, taker.given) == ([], [])


def test_the_most_urgent_is_taken_and_the_others_are_left(broker: Played, taker: Taker) -> None:
    others = [broker.put("comfyui.batch"), broker.put("comfyui")]
    urgent = broker.put("comfyui.urgent")
    taker.channel.tick()
    assert taker.given == [urgent]
    assert [*broker.queues["comfyui.batch"], *broker.queues["comfyui"]] == others
    assert not broker.consumers


@pytest.mark.parametrize(("wants", "priority"), [(Appetite.HUNGER, 10), (Appetite.AHEAD, 0)])
def test_if_all_are_empty_all_are_listened_at(
    broker: Played, taker: Taker, wants: Appetite, priority: int
) -> None:
    taker.wants = wants
    taker.channel.tick()
    assert broker.listening() == dict.fromkeys(QUEUES, priority)
    assert taker.channel.is_hungry is (wants is Appetite.HUNGER)
    before = len(broker.done)
    taker.channel.tick()
    assert len(broker.done) == before


def test_who_becomes_hungry_listens_so_before_it_ceases_to_listen_otherwise(
    broker: Played, taker: Taker
) -> None:
    taker.wants = Appetite.AHEAD
    taker.channel.tick()
    broker.done.clear()
    taker.wants = Appetite.HUNGER
    taker.channel.tick()
    assert [kind for kind, _ in broker.done] == ["consume"] * 3 + ["cancel"] * 3
    assert broker.listening() == dict.fromkeys(QUEUES, 10)


def test_who_was_given_one_is_given_no_other(broker: Played, taker: Taker) -> None:
    taker.channel.tick()
    first = broker.deliver("comfyui")
    # On its way at the same time.
    second = broker.deliver("comfyui.batch")
    assert taker.given == [first]
    assert broker.done[-1] == ("reject", second.delivery_tag, True)
    taker.channel.tick()
    assert not broker.consumers
    taker.channel.basic_ack(first.delivery_tag)
    taker.channel.tick()
    assert set(broker.listening()) == set(QUEUES)


def test_what_waits_for_its_time_takes_no_slot(broker: Played) -> None:
    taker = Taker(broker, slots=1)
    broker.put("comfyui")
    taker.channel.tick()
    taker.channel.basic_qos(0, 2, False)
    broker.put("comfyui")
    taker.channel.tick()
    assert len(taker.given) == 2


def test_when_the_gate_shuts_nothing_is_listened_at(broker: Played, taker: Taker) -> None:
    taker.channel.tick()
    for queue in QUEUES:
        taker.channel.basic_cancel(f"of {queue}")
    broker.put("comfyui")
    taker.channel.tick()
    assert (broker.consumers, taker.given) == ({}, [])


def test_lanes_come_first_and_say_whose_they_are(broker: Played, taker: Taker) -> None:
    lane = LaneQueue("comfyui.lane.x", ("a",))
    taker.channel.lanes = (lane,)
    broker.put("comfyui")
    broker.put(lane.name)
    taker.channel.tick()
    (raw,) = taker.given
    assert (raw.delivery_info[LANE], raw.delivery_info[UNABLE]) == ("x", ("a",))


def taken(broker: Played, taker: Taker, headers: Any = None) -> amqp.Message:
    broker.put("comfyui", headers)
    taker.channel.tick()
    broker.done.clear()
    return taker.given[-1]


def test_what_is_given_back_goes_to_where_it_came_from(broker: Played, taker: Taker) -> None:
    raw = taken(broker, taker)
    taker.channel.basic_reject(raw.delivery_tag, requeue=True)
    assert broker.done == [("reject", raw.delivery_tag, True)]


def test_a_copy_goes_on_for_what_was_delivered_often(broker: Played, taker: Taker) -> None:
    raw = taken(broker, taker, {"x-delivery-count": 9})
    taker.channel.basic_reject(raw.delivery_tag, requeue=True)
    assert broker.done == [("send", "comfyui"), ("ack", raw.delivery_tag)]


def test_what_is_dropped_is_dropped(broker: Played, taker: Taker) -> None:
    raw = taken(broker, taker, {"x-delivery-count": 9})
    taker.channel.basic_reject(raw.delivery_tag, requeue=False)
    assert broker.done == [("reject", raw.delivery_tag, False)]


def test_a_job_for_others_goes_to_its_lane(broker: Played, taker: Taker) -> None:
    raw = taken(broker, taker)
    lane = Lane.of("", ["a"])
    taker.channel.send_to(raw.delivery_tag, lane)
    taker.channel.basic_reject(raw.delivery_tag, requeue=True)
    queue = f"comfyui.lane.{lane.id}"
    assert taker.added == [LaneQueue(queue, ("a",))]
    assert broker.done == [("send", queue), ("ack", raw.delivery_tag)]


def test_a_lane_that_nobody_can_be_told_of_is_not_used(broker: Played, taker: Taker) -> None:
    def fail(_: LaneQueue) -> None:
        raise RedisConnectionError

    raw = taken(broker, taker)
    taker.channel.add_lane = fail
    taker.channel.send_to(raw.delivery_tag, Lane.of("", ["a"]))
    taker.channel.basic_reject(raw.delivery_tag, requeue=True)
    assert broker.done == [("reject", raw.delivery_tag, True)]


@pytest.mark.parametrize(
    "error", [amqp.ChannelError("NO_ROUTE"), MessageNacked(), TimeoutError("no confirmation")]
)
def test_a_message_whose_copy_is_refused_is_given_back(
    broker: Played, taker: Taker, error: Exception
) -> None:
    raw = taken(broker, taker, {"x-delivery-count": 9})
    broker.refusal = error
    taker.channel.basic_reject(raw.delivery_tag, requeue=True)
    assert broker.done == [("reject", raw.delivery_tag, True)]


def test_a_queue_that_was_deleted_is_declared_anew(broker: Played, taker: Taker) -> None:
    raw = taken(broker, taker)
    lane = Lane.of("", ["a"])
    broker.refusal = amqp.ChannelError("NO_ROUTE")
    for _ in range(2):
        taker.channel.send_to(raw.delivery_tag, lane)
        taker.channel._held[raw.delivery_tag] = raw
        taker.channel.basic_reject(raw.delivery_tag, requeue=True)
    assert broker.declared.count(f"comfyui.lane.{lane.id}") == 2


def test_a_message_that_outlives_its_connection_is_let_go(broker: Played, taker: Taker) -> None:
    first = taken(broker, taker)
    taker.channel.connection = None
    taker.channel.basic_ack(first.delivery_tag)
    taker.channel.basic_reject(first.delivery_tag, requeue=True)
    taker.channel.tick()
    assert broker.done == []
