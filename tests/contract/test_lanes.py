"""Who takes from which lane of a queue, and in which order, on a real server.

No test waits for time to pass: it sets the server's scores instead.
"""

import json
from base64 import b64decode
from collections.abc import Iterator
from typing import Any

import pytest

from sandbox.valkey import Valkey
from settings.celery import QUEUE
from tests.contract.test_kombu import AHEAD, HUNGER, Broker, Giver, Taker, name
from workers.broker.scripts import HUNGRY, LANES, PATIENT, TAKERS, lane_name
from workers.broker.transport import LANE, UNABLE, Standing
from workers.ledger.servers import DIGESTS, WARM
from workers.routing.lanes import Here, Lane

pytestmark = pytest.mark.contract

PATIENCE = 600.0
FLUX, SDXL = "flux", "sdxl"
FOREVER = 2.0**40


class Worker(Taker):
    """A taker whose server is good for something."""

    def stands(
        self,
        digest: str,
        models: str = "",
        wait_seconds: float = PATIENCE,
        returning_seconds: float = 0.0,
    ) -> None:
        """As a worker whose router says so."""
        standing = Standing(digest, models, wait_seconds, returning_seconds)
        self.channel.standing = lambda: standing

    def takes(self) -> str | None:
        """What it takes at once, without waiting in between."""
        self.channel._next = type(self.channel._next).LOOK
        return self.look()

    def receives(self) -> Any:
        """The next message, not yet settled."""
        self.channel._next = type(self.channel._next).LOOK
        return self.next()

    def sends_to(self, lane: Lane, message: Any) -> None:
        """Have a message wait in a lane."""
        self.qos.send_to(message.delivery_tag, lane)
        message.requeue()


class Lanes(Broker):
    """The server, where lanes can be looked into."""

    def lane(self, lane: Lane, priority: str = "") -> list[str]:
        """The names of the messages in a lane, the next one first."""
        found = self.client.lrange(lane_name(QUEUE, lane.id) + priority, 0, -1)
        return [self.named(entry) for entry in reversed(found)]

    def put(self, lane: Lane, *names: str, priority: int = 0) -> None:
        """Have messages wait in a lane, in this order, as if workers had sent them there."""
        now, _ = self.client.time()
        suffix = f"\x06\x16{priority}" if priority else ""
        self.send(*names, queue="aside", priority=priority)
        self.client.hset(LANES + QUEUE, lane.id, lane.dumped())
        self.client.zadd(f"{LANES}{QUEUE}:served", {lane.id: now}, nx=True)
        for _ in names:
            self.client.lmove(f"aside{suffix}", lane_name(QUEUE, lane.id) + suffix, "RIGHT", "LEFT")

    def age(self, lane: Lane, seconds: float) -> None:
        """As if the lane had been served so many seconds ago."""
        now, _ = self.client.time()
        self.client.zadd(f"{LANES}{QUEUE}:served", {lane.id: now - seconds})

    def warm(self, models: str, *digests: str, until: float = FOREVER) -> None:
        """Have servers with such capabilities have models loaded."""
        for number, digest in enumerate(digests):
            self.client.zadd(WARM, {f"{models} {digest} place{number}": until})

    def live(self, *digests: str, until: float = FOREVER) -> None:
        """Have servers with such capabilities be live."""
        self.client.zadd(DIGESTS, dict.fromkeys(digests, until))

    def lanes(self) -> set[str]:
        """The ids of the lanes that are known of."""
        return set(self.client.hkeys(LANES + QUEUE))

    @staticmethod
    def named(entry: str) -> str:
        """The name of the message in a list's entry."""
        return str(json.loads(b64decode(json.loads(entry)["body"]))["name"])


@pytest.fixture
def broker(valkey: Valkey) -> Iterator[Lanes]:
    one = Lanes(valkey)
    yield one
    one.client.close()


def _able(valkey: Valkey) -> Iterator[Worker]:
    one = Worker(valkey)
    one.stands("able")
    one.wants(HUNGER)
    yield one
    one.connection.close()


worker = pytest.fixture(_able, name="worker")
other = pytest.fixture(_able, name="other")


# Into a lane


def test_a_message_goes_to_a_lane_as_it_was(broker: Lanes, worker: Worker) -> None:
    lane = Lane.of(FLUX, ["x"])
    broker.send("a", "b")
    before = broker.client.lindex(QUEUE, -1)
    message = worker.receives()
    worker.sends_to(lane, message)
    assert broker.waiting() == ["b"]
    assert broker.lane(lane) == ["a"]
    (entry,) = broker.client.lrange(lane_name(QUEUE, lane.id), 0, -1)
    assert json.loads(entry)["body"] == json.loads(before or "")["body"]
    # It has not been tried: it is not marked as one that comes again.
    assert "redelivered" not in json.loads(entry)["headers"]
    assert worker.qos.held() == []
    assert json.loads(broker.client.hget(LANES + QUEUE, lane.id) or "") == {
        "models": FLUX,
        "unable": ["x"],
        "worth": 2,
    }
    worker.wants(AHEAD)
    another = worker.receives()
    assert (name(another), another.delivery_info[LANE]) == ("b", "")


def test_what_comes_to_a_lane_is_the_last_there_and_what_comes_back_is_the_next(
    broker: Lanes, worker: Worker
) -> None:
    worker.stands("able", FLUX)
    lane = Lane.of(FLUX, ())
    broker.put(lane, "a", "b", "c")
    assert broker.lane(lane) == ["a", "b", "c"]
    message = worker.receives()
    assert (name(message), message.delivery_info[LANE]) == ("a", lane.id)
    worker.sends_to(lane, message)
    assert broker.lane(lane) == ["a", "b", "c"]
    # To another lane it is a newcomer.
    another = Lane.of(FLUX, ["x"])
    message = worker.receives()
    broker.put(another, "d")
    worker.sends_to(another, message)
    assert broker.lane(another) == ["d", "a"]


def test_a_newcomer_does_not_make_a_lane_wait_anew(broker: Lanes, worker: Worker) -> None:
    lane = Lane.of(FLUX, ())
    broker.put(lane, "a")
    broker.age(lane, PATIENCE + 2)
    worker.wants(AHEAD)
    broker.send("b", priority=9)
    message = worker.receives()
    assert name(message) == "a"
    broker.put(lane, "c")
    broker.age(lane, PATIENCE + 2)
    worker.sends_to(lane, message)
    assert worker.takes() == "a"


def test_a_message_keeps_its_priority_in_a_lane(broker: Lanes, worker: Worker) -> None:
    worker.stands("able", FLUX)
    lane = Lane.of(FLUX, ())
    broker.put(lane, "later", priority=6)
    broker.put(lane, "sooner", priority=3)
    assert [worker.takes(), worker.takes(), worker.takes()] == ["sooner", "later", None]


@pytest.mark.parametrize("settled", ["acknowledged", "taken over"])
def test_what_is_no_longer_held_is_not_moved(
    broker: Lanes, worker: Worker, other: Worker, settled: str
) -> None:
    broker.send("a")
    message = worker.receives()
    if settled == "acknowledged":
        # By who had it before, with the same tag.
        broker.client.hdel(worker.qos.unacked_key, message.delivery_tag)
    else:
        broker.forget(worker.qos.unacked_index_key)
        other.sweep()
    lane = Lane.of(FLUX, ())
    worker.sends_to(lane, message)
    assert broker.lane(lane) == []
    assert broker.lanes() == set()
    assert broker.waiting() == ([] if settled == "acknowledged" else ["a"])


def test_a_full_server_moves_messages_all_the_same(broker: Lanes, worker: Worker) -> None:
    lane = Lane.of(FLUX, ())
    broker.send("a")
    message = worker.receives()
    broker.client.config_set("maxmemory", 1)
    worker.sends_to(lane, message)
    assert broker.lane(lane) == ["a"]
    worker.stands("able", FLUX)
    assert worker.takes() == "a"


# Out of a lane


def test_who_has_the_models_loaded_takes_first_from_their_lane(
    broker: Lanes, worker: Worker, other: Worker
) -> None:
    lane = Lane.of(FLUX, ())
    broker.put(lane, "warm")
    broker.send("any")
    broker.warm(FLUX, "able")
    other.stands("able", SDXL)
    assert other.takes() == "any"
    broker.send("any other")
    worker.stands("able", FLUX)
    assert worker.takes() == "warm"
    assert worker.takes() == "any other"


def test_who_has_the_models_loaded_need_not_be_hungry(
    broker: Lanes, worker: Worker, other: Worker
) -> None:
    other.stands("able", SDXL)
    broker.warm(FLUX, "able")
    assert other.takes() is None
    broker.put(Lane.of(FLUX, ()), "warm")
    broker.send("any")
    worker.stands("able", FLUX)
    worker.wants(AHEAD)
    assert worker.takes() == "warm"
    # The queue is for who has nothing to do.
    other.takes()
    assert (worker.takes(), broker.waiting()) == (None, [])


def test_jobs_without_models_are_for_whoever_can_run_them(broker: Lanes, worker: Worker) -> None:
    lane = Lane.of("", ["unable"])
    broker.put(lane, "a")
    broker.send("b")
    worker.wants(AHEAD)
    assert [worker.takes(), worker.takes()] == ["a", "b"]


def test_what_nobody_has_loaded_is_for_the_hungry(broker: Lanes, worker: Worker) -> None:
    broker.put(Lane.of(FLUX, ()), "orphan")
    broker.send("any")
    worker.wants(AHEAD)
    assert worker.takes() == "any"
    assert worker.takes() is None
    worker.wants(HUNGER)
    broker.send("any")
    # Before what is in the queue.
    assert [worker.takes(), worker.takes()] == ["orphan", "any"]


def test_what_nobody_has_loaded_for_long_is_for_all(broker: Lanes, worker: Worker) -> None:
    lane = Lane.of(FLUX, ())
    broker.put(lane, "a", "b")
    broker.send("any")
    broker.age(lane, PATIENCE + 2)
    worker.wants(AHEAD)
    # One of them; with that the lane has been served.
    assert [worker.takes(), worker.takes(), worker.takes()] == ["a", "any", None]


def test_patience_ends_no_sooner_for_who_cannot_run_it(broker: Lanes, worker: Worker) -> None:
    worker.stands("unable")
    broker.live("unable", "able")
    lane = Lane.of(FLUX, ["unable"])
    broker.put(lane, "a")
    broker.age(lane, PATIENCE + 2)
    assert worker.takes() is None


def test_a_warmth_that_ran_out_does_not_count(broker: Lanes, worker: Worker) -> None:
    broker.put(Lane.of(FLUX, ()), "orphan")
    broker.warm(FLUX, "able")
    assert worker.takes() is None
    broker.warm(FLUX, "able", until=1.0)
    assert worker.takes() == "orphan"


def test_the_warmth_of_who_cannot_run_it_does_not_count(broker: Lanes, worker: Worker) -> None:
    broker.put(Lane.of(FLUX, ["unable"]), "orphan")
    broker.warm(FLUX, "unable")
    assert worker.takes() == "orphan"


def test_loading_models_once_more_must_be_worth_it(broker: Lanes, worker: Worker) -> None:
    lane = Lane.of(FLUX, (), worth=3)
    broker.warm(FLUX, "able", "able")
    broker.put(lane, *"abcde")
    assert worker.takes() is None
    # Of every priority, but first those of the queue.
    broker.put(lane, "f", priority=3)
    broker.send("any")
    assert worker.takes() == "any"
    assert worker.takes() == "a"
    assert worker.takes() is None


def test_who_has_nothing_to_do_leaves_a_lane_to_others_no_longer_than_it_may(
    broker: Lanes, worker: Worker
) -> None:
    # As when the one that has its models loaded executes something for an hour.
    lane = Lane.of(FLUX, ())
    broker.warm(FLUX, "able")
    broker.put(lane, "a", "b")
    broker.age(lane, PATIENCE - 60)
    worker.wants(AHEAD)
    assert worker.takes() is None
    broker.age(lane, PATIENCE + 2)
    assert worker.takes() is None
    broker.send("any")
    worker.wants(HUNGER)
    # It is served now: the next one has waited since then.
    assert [worker.takes(), worker.takes(), worker.takes()] == ["a", "any", None]


def test_who_executes_something_serves_a_lane_too_that_waits_without_end(
    broker: Lanes, worker: Worker
) -> None:
    lane = Lane.of(FLUX, ())
    broker.warm(FLUX, "able")
    broker.put(lane, "a", "b")
    broker.send("any")
    worker.wants(AHEAD)
    broker.age(lane, PATIENT * PATIENCE - 60)
    assert worker.takes() == "any"
    broker.age(lane, PATIENT * PATIENCE + 2)
    assert [worker.takes(), worker.takes()] == ["a", None]


def test_who_does_not_wait_for_loaded_models_serves_any_lane(broker: Lanes, worker: Worker) -> None:
    worker.stands("able", wait_seconds=0.0)
    worker.wants(AHEAD)
    broker.warm(FLUX, "able")
    broker.put(Lane.of(FLUX, ()), "a")
    assert worker.takes() == "a"


def test_only_the_hungry_load_models_once_more(broker: Lanes, worker: Worker) -> None:
    broker.warm(FLUX, "able")
    broker.put(Lane.of(FLUX, (), worth=1), "a", "b", "c")
    worker.wants(AHEAD)
    assert worker.takes() is None
    worker.wants(HUNGER)
    assert worker.takes() == "a"


def test_who_cannot_run_jobs_leaves_them_to_others(broker: Lanes, worker: Worker) -> None:
    worker.stands("unable")
    broker.live("unable", "able")
    lane = Lane.of("", ["unable"])
    broker.put(lane, "a")
    broker.age(lane, 3600)
    assert worker.takes() is None


def test_what_no_live_server_can_run_is_for_whoever_comes_first(
    broker: Lanes, worker: Worker
) -> None:
    worker.stands("unable")
    lane = Lane.of(FLUX, ["unable", "worse"])
    broker.put(lane, "a")
    broker.live("unable", "worse", "able")
    worker.wants(AHEAD)
    assert worker.takes() is None
    # The one who could is gone; nobody has told of him any more.
    broker.live("able", until=1.0)
    assert worker.takes() == "a"


def test_who_cannot_run_jobs_takes_them_neither_as_orphans_nor_for_their_number(
    broker: Lanes, worker: Worker
) -> None:
    lane = Lane.of(FLUX, ["unable"], worth=1)
    broker.live("unable", "able")
    worker.stands("unable", FLUX)
    broker.put(lane, "a", "b", "c")
    assert worker.takes() is None
    broker.warm(FLUX, "able")
    assert worker.takes() is None


def test_what_cannot_be_run_is_left_alone_while_servers_may_come_back(
    broker: Lanes, worker: Worker
) -> None:
    # As when all workers are started again, and one is the first.
    broker.live("unable")
    broker.put(Lane.of("", ["unable"]), "a")
    worker.stands("unable", returning_seconds=3.0)
    assert worker.takes() is None
    worker.stands("unable")
    assert worker.takes() == "a"


def test_who_is_not_known_leaves_to_others_what_not_everybody_can_run(
    broker: Lanes, worker: Worker
) -> None:
    worker.stands("", FLUX)
    broker.put(Lane.of(FLUX, ["unable"], worth=1), "a")
    broker.live("unable", "able")
    assert worker.takes() is None
    broker.put(Lane.of(FLUX, ()), "b")
    assert worker.takes() == "b"
    # Who is known to be unable waits for it, too: perhaps it can, and nobody else.
    broker.live("")
    broker.live("able", until=1.0)
    worker.stands("unable")
    assert worker.takes() is None
    worker.stands("")
    assert worker.takes() == "a"


def test_a_message_tells_who_cannot_run_it_as_far_as_its_lane_knows(
    broker: Lanes, worker: Worker
) -> None:
    broker.send("a", "b")
    worker.sends_to(Lane.of("", ["worse", "unable"]), worker.receives())
    worker.wants(AHEAD)
    from_lane, from_queue = worker.receives(), worker.receives()
    assert name(from_lane) == "a"
    assert from_lane.delivery_info[UNABLE] == ("unable", "worse")
    assert from_queue.delivery_info[UNABLE] == ()


def test_what_is_urgent_comes_first_wherever_it_waits(broker: Lanes, worker: Worker) -> None:
    worker.stands("able", FLUX)
    broker.put(Lane.of(FLUX, ()), "warm")
    broker.put(Lane.of(SDXL, ()), "orphan")
    broker.put(Lane.of(FLUX, ()), "warm later", priority=3)
    broker.send("later", priority=3)
    broker.send("any")
    order = [worker.takes() for _ in range(6)]
    assert order == ["warm", "orphan", "any", "warm later", "later", None]


def test_the_lane_that_waited_longest_is_served_first(broker: Lanes, worker: Worker) -> None:
    lanes = [Lane.of(models, ()) for models in (FLUX, SDXL, "sd15")]
    for lane, seconds in zip(lanes, (100, 300, 200), strict=True):
        broker.put(lane, f"{lane.models} 1", f"{lane.models} 2")
        broker.age(lane, seconds)
    order = [str(worker.takes()) for _ in range(6)]
    assert [one.split()[0] for one in order[:3]] == [SDXL, "sd15", FLUX]
    assert [one.split()[1] for one in order] == ["1", "1", "1", "2", "2", "2"]


def test_a_lane_is_forgotten_with_its_last_job(broker: Lanes, worker: Worker) -> None:
    lane = Lane.of("", ["unable"])
    broker.put(lane, "a", "b")
    # Nobody looks in vain meanwhile.
    broker.send("any")
    assert worker.takes() == "a"
    assert broker.lanes() == {lane.id}
    assert worker.takes() == "b"
    assert broker.lanes() == set()
    # So that a job that comes later has waited since then, and not since the last one went.
    assert not broker.client.exists(f"{LANES}{QUEUE}:served")


def test_a_lane_without_jobs_is_forgotten_by_who_finds_nothing(
    broker: Lanes, worker: Worker
) -> None:
    lane = Lane.of(FLUX, ())
    broker.put(lane, "a")
    broker.client.delete(lane_name(QUEUE, lane.id))
    assert worker.takes() is None
    assert broker.keys() == {HUNGRY + QUEUE}


def test_each_queue_has_lanes_of_its_own(broker: Lanes, valkey: Valkey, worker: Worker) -> None:
    broker.send("a", queue="others")
    both = Worker(valkey, queues=(QUEUE, "others"))
    both.stands("able")
    message = both.receives()
    both.sends_to(Lane.of("", ["unable"]), message)
    assert worker.takes() is None
    assert both.takes() == "a"
    both.connection.close()


# Back from a lane


def test_what_was_taken_from_a_lane_and_is_put_back_is_next_in_the_queue(
    broker: Lanes, worker: Worker, other: Worker
) -> None:
    worker.stands("able", FLUX)
    broker.put(Lane.of(FLUX, ()), "a")
    broker.send("b")
    assert worker.take()[2] != ""
    broker.forget(TAKERS)
    other.sweep()
    assert broker.waiting() == ["a", "b"]


def test_what_a_dead_worker_held_of_a_lane_is_next_in_the_queue_and_comes_again(
    broker: Lanes, worker: Worker, other: Worker
) -> None:
    worker.stands("able", FLUX)
    broker.put(Lane.of(FLUX, ()), "a")
    broker.send("b")
    worker.receives()
    broker.forget(worker.qos.unacked_index_key)
    other.sweep()
    assert broker.waiting() == ["a", "b"]
    again = other.receives()
    assert (name(again), again.delivery_info[LANE]) == ("a", "")
    assert again.delivery_info["redelivered"]


def test_a_leaving_worker_keeps_nothing_of_a_lane(
    broker: Lanes, valkey: Valkey, other: Worker
) -> None:
    leaving = Worker(valkey)
    leaving.stands("able", FLUX)
    leaving.wants(HUNGER)
    broker.put(Lane.of(FLUX, ()), "a", "b", "c")
    leaving.receives()
    leaving.take()
    leaving.connection.close()
    assert broker.waiting() == ["a", "b"]
    other.stands("able", FLUX)
    assert {other.takes(), other.takes(), other.takes()} == {"a", "b", "c"}


def test_a_lost_reply_about_a_lane_is_asked_for_again(broker: Lanes, worker: Worker) -> None:
    worker.stands("able", FLUX)
    broker.put(Lane.of(FLUX, ()), "a")
    worker.channel.connection.cycle.on_poll_start()
    worker.channel.client.connection.disconnect()
    assert name(worker.next()) == "a"


# The queue as a whole


def test_what_waits_in_lanes_counts_as_waiting(broker: Lanes, worker: Worker) -> None:
    broker.put(Lane.of(FLUX, ()), "a", "b")
    broker.put(Lane.of("", ["x"]), "c", priority=9)
    broker.send("d")
    assert worker.channel.queue_declare(QUEUE, passive=True).message_count == 4
    assert worker.channel.queue_purge(QUEUE) == 4
    assert worker.takes() is None
    assert broker.keys() == {HUNGRY + QUEUE}


# Who is given a job


@pytest.mark.parametrize(("digest", "is_served"), [("able", True), ("unable", False), ("", True)])
def test_who_cannot_run_a_job_is_not_given_it(
    broker: Lanes, worker: Worker, other: Worker, digest: str, is_served: bool
) -> None:
    giver = Giver(worker)
    giver.keeper.spare.here = Here(unable=frozenset({"unable", "worse"}))
    other.stands(digest)
    assert other.takes() is None
    assert giver.answer(broker) is is_served
