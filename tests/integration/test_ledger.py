"""The ledger on a real Valkey: who has a job, for how long, and what nobody else may do to it."""

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar
from unittest.mock import ANY

import pytest
import redis

from sandbox.stack import Stack
from sandbox.valkey import Valkey
from tasks.errors import BrokerFullError, BrokerUnavailableError
from tasks.result import Attempt
from workers.ledger import Cancelled, Claimed, Ended, Held, Ledger, Record, Verdict
from workers.ledger import ledger as module
from workers.ledger.dead_letters import KEY, DeadLetter, DeadLetters
from workers.ledger.ledger import CANCEL, LEASE_SECONDS, LOST, OURS

pytestmark = pytest.mark.integration

T = TypeVar("T")

RECORD = Record(place="here", instance="http://here", client_id="c", folder="job", since=1.0)
NEXT = RECORD.model_copy(update={"failures": 1, "prompt": 2})
OTHERS = RECORD.model_copy(update={"place": "there"})
WEEK = 7 * 24 * 3600


def letter(job_id: str, at: float) -> DeadLetter:
    attempt = Attempt(number=1, instance="i", prompt_id="p", error="X: x", seconds=1.0)
    return DeadLetter(
        job_id=job_id, request={"workflow": {}}, attempts=(attempt,), error="X: x", at=at
    )


@pytest.fixture
def leases_lapse_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEASE_SECONDS", 0.0)
    # The server has only just been started.
    monkeypatch.setattr(module, "RESTART_GRACE_SECONDS", 0.0)


def claim(ledger: Ledger, job_id: str = "job", record: Record = RECORD) -> Verdict:
    return ledger.claim(job_id, record, uuid.uuid4().hex)


def claimed(ledger: Ledger, job_id: str = "job", record: Record = RECORD) -> Claimed:
    verdict = claim(ledger, job_id, record)
    assert isinstance(verdict, Claimed)
    return verdict


def eventually(ask: Callable[[], T], seconds: float = 10.0) -> T:
    deadline = time.monotonic() + seconds
    while not (found := ask()):
        assert time.monotonic() < deadline
    return found


# Claiming


def test_a_job_that_nobody_had_is_had_with_the_record_given(ledger: Ledger) -> None:
    before = time.time()
    verdict = claimed(ledger)
    assert verdict == Claimed(1, verdict.now, is_new=True, owner_died=False, record=RECORD)
    # The server's clock, which here is ours too; it tells milliseconds.
    assert before - 0.001 <= verdict.now <= time.time()
    assert ledger.record("job") == RECORD


@pytest.mark.usefixtures("leases_lapse_at_once")
def test_the_first_attempt_began_when_the_job_was_claimed_first(ledger: Ledger) -> None:
    # By the server's clock: that of a worker may be wrong.
    unknown = RECORD.model_copy(update={"since": 0.0})
    first = claimed(ledger, record=unknown)
    assert first.record.since == pytest.approx(first.now)
    assert ledger.save("job", first.token, unknown)
    second = claimed(ledger)
    assert second.record.since == first.record.since
    assert second.now >= first.now


def test_a_job_that_somebody_has_is_held_until_the_lease_ends(ledger: Ledger) -> None:
    claimed(ledger)
    verdict = claim(ledger, record=OTHERS)
    assert isinstance(verdict, Held)
    assert LEASE_SECONDS - 5.0 < verdict.seconds <= LEASE_SECONDS
    assert ledger.record("job") == RECORD


def test_jobs_do_not_meet(ledger: Ledger) -> None:
    assert claimed(ledger, "one").is_new
    assert claimed(ledger, "other").is_new


@pytest.mark.usefixtures("leases_lapse_at_once")
def test_a_job_whose_owner_vanished_is_taken_over_with_what_is_known_of_it(ledger: Ledger) -> None:
    first = claimed(ledger)
    assert ledger.save("job", first.token, NEXT)
    second = claimed(ledger, record=OTHERS)
    assert (second.token, second.record) == (first.token + 1, NEXT)
    assert (second.is_new, second.owner_died) == (False, True)
    assert claimed(ledger, record=OTHERS).token == first.token + 2


@pytest.mark.usefixtures("leases_lapse_at_once")
def test_who_has_lost_a_job_can_do_nothing_to_it(ledger: Ledger, server: redis.Redis) -> None:
    old = claimed(ledger).token
    new = claimed(ledger).token
    before = server.hgetall("comfyfleet:job:job")
    assert ledger.renew([("job", old)]) == {("job", old): LOST}
    assert not ledger.save("job", old, OTHERS)
    assert not ledger.release("job", old, OTHERS, 60.0)
    assert not ledger.end("job", old, "failed", "x")
    assert server.hgetall("comfyfleet:job:job") == before
    assert ledger.renew([("job", new)]) == {("job", new): OURS}
    assert ledger.save("job", new, NEXT)
    assert ledger.end("job", new, "succeeded")


@pytest.mark.parametrize("token", [0, 2, 10, -1])
def test_a_token_that_was_never_given_is_none(ledger: Ledger, token: int) -> None:
    assert claimed(ledger).token == 1
    assert ledger.renew([("job", token)]) == {("job", token): LOST}
    assert not ledger.end("job", token, "failed")


def test_of_two_hundred_claims_at_once_one_is_granted(ledger: Ledger) -> None:
    start = threading.Barrier(8)

    def claims(_: int) -> list[Any]:
        start.wait(10)
        return [claim(ledger) for _ in range(25)]

    with ThreadPoolExecutor(8) as pool:
        verdicts = [verdict for some in pool.map(claims, range(8)) for verdict in some]
    granted = [one for one in verdicts if isinstance(one, Claimed)]
    assert [(one.token, one.is_new) for one in granted] == [(1, True)]
    assert sum(isinstance(one, Held) for one in verdicts) == 199


def test_of_two_hundred_claims_of_a_lapsed_job_one_is_granted(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RESTART_GRACE_SECONDS", 0.0)
    with monkeypatch.context() as lapsing:
        lapsing.setattr(module, "LEASE_SECONDS", 0.0)
        claimed(ledger)
    with ThreadPoolExecutor(8) as pool:
        verdicts = list(pool.map(lambda _: claim(ledger), range(200)))
    granted = [one for one in verdicts if isinstance(one, Claimed)]
    assert [(one.token, one.owner_died) for one in granted] == [(2, True)]


def test_a_claim_whose_answer_was_lost_is_asked_for_again(ledger: Ledger) -> None:
    first = ledger.claim("job", RECORD, "nonce")
    again = ledger.claim("job", RECORD, "nonce")
    assert isinstance(first, Claimed)
    assert isinstance(again, Claimed)
    assert (again.token, again.record, again.owner_died) == (first.token, RECORD, False)
    # Also by one that has said meanwhile that it is leaving: it is not gone.
    ledger.leave([("job", first.token)])
    assert ledger.claim("job", RECORD, "nonce") == replace(again, now=ANY)
    assert isinstance(ledger.claim("job", RECORD, "another"), Held)


def test_a_claim_that_was_let_go_of_is_not_asked_for_again(ledger: Ledger) -> None:
    first = ledger.claim("job", RECORD, "nonce")
    assert isinstance(first, Claimed)
    ledger.release("job", first.token, NEXT)
    again = ledger.claim("job", RECORD, "nonce")
    assert isinstance(again, Claimed)
    assert again.token == first.token + 1


# Leaving


def test_who_is_about_to_leave_still_has_the_job(ledger: Ledger) -> None:
    token = claimed(ledger).token
    ledger.leave([("job", token), ("never had", 1)])
    assert isinstance(claim(ledger), Held)
    assert ledger.renew([("job", token)]) == {("job", token): OURS}
    assert ledger.release("job", token, NEXT)
    verdict = claimed(ledger)
    assert (verdict.owner_died, verdict.owner_left) == (False, False)


@pytest.mark.usefixtures("leases_lapse_at_once")
def test_of_who_is_gone_it_is_known_whether_it_said_that_it_leaves(ledger: Ledger) -> None:
    ledger.leave([("job", claimed(ledger).token)])
    verdict = claimed(ledger)
    assert (verdict.token, verdict.owner_died, verdict.owner_left) == (2, True, True)
    # What holds for it holds for nobody after it.
    verdict = claimed(ledger)
    assert (verdict.token, verdict.owner_died, verdict.owner_left) == (3, True, False)


@pytest.mark.usefixtures("leases_lapse_at_once")
def test_who_has_lost_a_job_says_nothing_of_it_any_more(ledger: Ledger) -> None:
    old = claimed(ledger).token
    claimed(ledger)
    ledger.leave([("job", old)])
    assert not claimed(ledger).owner_left


# Renewing


def test_a_renewed_lease_does_not_lapse(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RESTART_GRACE_SECONDS", 0.0)
    with monkeypatch.context() as lapsing:
        lapsing.setattr(module, "LEASE_SECONDS", 0.0)
        token = claimed(ledger).token
    assert ledger.renew([("job", token)]) == {("job", token): OURS}
    assert isinstance(claim(ledger), Held)


def test_many_are_renewed_at_once_and_each_has_its_own_answer(ledger: Ledger) -> None:
    ours, cancelled, ended = (claimed(ledger, name).token for name in ("a", "b", "c"))
    ledger.cancel("b", running=True)
    ledger.end("c", ended, "succeeded")
    claims = [("a", ours), ("b", cancelled), ("c", ended), ("never had", 1), ("a", ours + 1)]
    assert list(ledger.renew(iter(claims)).values()) == [OURS, CANCEL, LOST, LOST, LOST]
    assert ledger.renew([]) == {}


# Releasing


def test_a_released_job_is_anybodys(ledger: Ledger) -> None:
    token = claimed(ledger).token
    assert ledger.release("job", token, NEXT)
    assert ledger.renew([("job", token)]) == {("job", token): LOST}
    again = claimed(ledger, record=OTHERS)
    assert (again.token, again.record) == (token + 1, NEXT)
    assert (again.is_new, again.owner_died) == (False, False)


def test_a_pause_holds_for_everybody(ledger: Ledger) -> None:
    assert ledger.release("job", claimed(ledger).token, NEXT, pause=60.0)
    verdict = claim(ledger)
    assert isinstance(verdict, Held)
    assert 50.0 < verdict.seconds <= 60.0


def test_after_the_pause_the_job_is_anybodys(ledger: Ledger) -> None:
    ledger.release("job", claimed(ledger).token, NEXT, pause=0.05)
    verdict = eventually(lambda: _unless_held(claim(ledger)))
    assert (verdict.is_new, verdict.owner_died) == (False, False)


def _unless_held(verdict: Any) -> Any:
    return None if isinstance(verdict, Held) else verdict


# The end


@pytest.mark.parametrize("outcome", ["succeeded", "failed", "cancelled"])
def test_an_end_is_for_good(ledger: Ledger, outcome: Any) -> None:
    token = claimed(ledger).token
    assert ledger.end("job", token, outcome, "detail")
    for _ in range(2):
        assert claim(ledger) == Ended(outcome, "detail")
    assert ledger.ended("job") == Ended(outcome, "detail")
    assert ledger.record("job") is None
    assert ledger.renew([("job", token)]) == {("job", token): LOST}


def test_an_end_may_be_recorded_twice(ledger: Ledger) -> None:
    # The answer to the first time may have been lost.
    token = claimed(ledger).token
    assert [ledger.end("job", token, "succeeded", "m") for _ in range(2)] == [True, True]


def test_a_job_is_put_aside_in_the_step_that_ends_it(ledger: Ledger) -> None:
    one = letter("job", 1.0)
    assert ledger.end("job", claimed(ledger).token, "failed", "detail", one)
    assert ledger.dead_letters.all() == [one]
    assert claim(ledger) == Ended("failed", "detail")


def test_who_has_lost_a_job_cannot_put_it_aside(ledger: Ledger) -> None:
    token = claimed(ledger).token
    assert not ledger.end("job", token + 1, "failed", "detail", letter("job", 1.0))
    assert ledger.dead_letters.all() == []


def test_a_job_that_has_not_ended_has_no_end(ledger: Ledger) -> None:
    assert ledger.ended("job") is None
    assert ledger.record("job") is None
    claimed(ledger)
    assert ledger.ended("job") is None


@pytest.mark.parametrize(("keep", "kept"), [(3600.0, WEEK), (2.0 * WEEK, 2 * WEEK)])
def test_a_job_is_remembered_for_a_week_or_as_long_as_its_result(
    valkey: Valkey, server: redis.Redis, keep: float, kept: float
) -> None:
    with Ledger(valkey.url, keep_seconds=keep) as ledger:
        for name, step in (("a", "claim"), ("b", "release"), ("c", "end"), ("d", "cancel")):
            token = claimed(ledger, name).token if step != "cancel" else 0
            if step == "release":
                ledger.release(name, token, NEXT)
            elif step == "end":
                ledger.end(name, token, "succeeded")
            elif step == "cancel":
                ledger.cancel(name, running=False)
            assert kept - 60 < server.ttl(f"comfyfleet:job:{name}") <= kept, step


# Cancelling


def cancelled(ledger: Ledger) -> Cancelled:
    verdict = claim(ledger)
    assert isinstance(verdict, Cancelled)
    return verdict


def test_a_job_that_is_cancelled_before_it_came_is_not_begun(ledger: Ledger) -> None:
    assert ledger.cancel("job", running=False) is None
    verdict = cancelled(ledger)
    assert verdict.record is None
    assert ledger.end("job", verdict.token, "cancelled")
    assert claim(ledger) == Ended("cancelled", "")


@pytest.mark.parametrize("running", [True, False])
def test_a_job_that_pauses_is_cancelled_at_once(ledger: Ledger, running: bool) -> None:
    token = claimed(ledger).token
    ledger.release("job", token, NEXT, pause=60.0)
    ledger.cancel("job", running=running)
    # Whoever ends it cleans up after it.
    assert cancelled(ledger) == Cancelled(token + 1, NEXT)


def test_of_many_that_find_a_cancelled_job_the_last_ends_it(ledger: Ledger) -> None:
    ledger.cancel("job", running=True)
    first, last = cancelled(ledger).token, cancelled(ledger).token
    assert not ledger.end("job", first, "cancelled")
    assert ledger.end("job", last, "cancelled")


def test_a_running_job_is_cancelled_if_that_is_meant(ledger: Ledger) -> None:
    token = claimed(ledger).token
    assert ledger.cancel("job", running=True) is None
    assert ledger.renew([("job", token)]) == {("job", token): CANCEL}
    # It is its owner's until that has ended it.
    assert isinstance(claim(ledger), Held)
    assert ledger.save("job", token, NEXT)
    assert ledger.end("job", token, "cancelled")
    assert claim(ledger) == Ended("cancelled", "")


def test_a_running_job_goes_on_if_that_is_not_meant_but_is_not_begun_again(ledger: Ledger) -> None:
    token = claimed(ledger).token
    ledger.cancel("job", running=False)
    assert ledger.renew([("job", token)]) == {("job", token): OURS}
    ledger.release("job", token, NEXT)
    assert cancelled(ledger).record == NEXT


@pytest.mark.parametrize("order", [(True, False), (False, True)])
def test_the_stricter_cancellation_wins(ledger: Ledger, order: tuple[bool, bool]) -> None:
    token = claimed(ledger).token
    for running in order:
        ledger.cancel("job", running=running)
    assert ledger.renew([("job", token)]) == {("job", token): CANCEL}


@pytest.mark.usefixtures("leases_lapse_at_once")
def test_a_job_whose_owner_vanished_is_no_running_one(ledger: Ledger) -> None:
    claimed(ledger)
    ledger.cancel("job", running=False)
    assert cancelled(ledger).record == RECORD


@pytest.mark.parametrize("outcome", ["succeeded", "failed"])
def test_a_job_that_has_ended_is_not_cancelled(ledger: Ledger, outcome: Any) -> None:
    ledger.end("job", claimed(ledger).token, outcome, "detail")
    assert ledger.cancel("job", running=True) == outcome
    assert claim(ledger) == Ended(outcome, "detail")


# A server that was away


@pytest.fixture
def own(stack: Stack) -> Iterator[Valkey]:
    """A server to stop and start."""
    one = Valkey(stack.folder("valkey"))
    yield one
    one.stop()


@pytest.mark.parametrize("end", [Valkey.stop, Valkey.kill], ids=["stopped", "killed"])
def test_after_a_restart_everything_is_there_and_owners_can_renew_first(
    own: Valkey, monkeypatch: pytest.MonkeyPatch, end: Callable[[Valkey], None]
) -> None:
    with Ledger(own.url) as ledger:
        with monkeypatch.context() as lapsing:
            lapsing.setattr(module, "LEASE_SECONDS", 0.0)
            token = claimed(ledger).token
            released = claimed(ledger, "released").token
        ledger.release("released", released, NEXT)
        ledger.cancel("cancelled", running=False)
        ledger.order_stop("here", "p")
        end(own)
        own.start()
        monkeypatch.setattr(module, "RESTART_GRACE_SECONDS", 3600.0)
        verdict = claim(ledger, record=OTHERS)
        assert isinstance(verdict, Held)
        assert 3500.0 < verdict.seconds <= 3600.0
        # The grace is for leases; what nobody has is had at once.
        assert claimed(ledger, "released").record == NEXT
        assert claimed(ledger, "new").is_new
        assert isinstance(claim(ledger, "cancelled"), Cancelled)
        assert ledger.announce("here", live=True) == ["p"]
        assert ledger.renew([("job", token)]) == {("job", token): OURS}
        monkeypatch.setattr(module, "RESTART_GRACE_SECONDS", 0.0)
        assert isinstance(claim(ledger, record=OTHERS), Held)


def test_after_the_grace_a_lapsed_lease_is_one(
    own: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LEASE_SECONDS", 0.0)
    # The server counts whole seconds.
    monkeypatch.setattr(module, "RESTART_GRACE_SECONDS", 1.0)
    with Ledger(own.url) as ledger:
        claimed(ledger)
        verdict = eventually(lambda: _unless_held(claim(ledger)))
    assert verdict.owner_died


# Places


def test_the_live_places_are_those_that_say_so(ledger: Ledger) -> None:
    assert ledger.live_places() == frozenset()
    for place in ("a", "b"):
        ledger.announce(place, live=True)
    assert ledger.live_places() == {"a", "b"}
    ledger.announce("a", live=False)
    ledger.announce("never was", live=False)
    assert ledger.live_places() == {"b"}


def test_a_place_of_which_nothing_is_heard_is_not_live(
    ledger: Ledger, server: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as short:
        short.setattr(module, "PLACE_SECONDS", 0.05)
        ledger.announce("a", live=True)
    assert eventually(lambda: ledger.live_places() == frozenset())
    # Nor kept for ever.
    ledger.announce("b", live=True)
    assert server.zrange("comfyfleet:places", 0, -1) == ["b"]


def test_prompts_to_stop_are_told_until_they_are_struck_off(ledger: Ledger) -> None:
    for prompt in ("p1", "p2", "p1"):
        ledger.order_stop("here", prompt)
    assert ledger.announce("there", live=True) == []
    for live in (True, False):
        assert set(ledger.announce("here", live=live)) == {"p1", "p2"}
    ledger.stopped("here", ["p1"])
    assert ledger.announce("here", live=True) == ["p2"]
    ledger.stopped("here", ["p2", "never was"])
    assert ledger.announce("here", live=True) == []


def test_an_order_that_nobody_takes_is_forgotten_some_time(
    ledger: Ledger, server: redis.Redis
) -> None:
    ledger.order_stop("gone for good", "p")
    assert 0 < server.ttl("comfyfleet:stop:gone for good") <= WEEK


# What a job is committed with, where the store cannot decide


@pytest.mark.usefixtures("leases_lapse_at_once")
def test_the_first_manifest_is_that_of_every_owner(ledger: Ledger) -> None:
    first = claimed(ledger).token
    assert ledger.committed("job") is None
    assert ledger.commit("job", first, "first") == "first"
    second = claimed(ledger).token
    assert ledger.commit("job", first, "late") is None
    assert ledger.commit("job", second, "second") == "first"
    assert ledger.committed("job") == "first"


def test_a_manifest_is_kept_between_attempts_and_not_beyond_the_end(
    ledger: Ledger, server: redis.Redis
) -> None:
    token = claimed(ledger).token
    assert ledger.commit("job", token, "first") == "first"
    ledger.release("job", token, NEXT)
    token = claimed(ledger).token
    assert ledger.commit("job", token, "second") == "first"
    assert ledger.end("job", token, "succeeded", "key")
    assert ledger.committed("job") is None
    assert ledger.commit("unknown", 1, "x") is None
    assert not server.exists("comfyfleet:job:unknown")


# Dead letters


def test_dead_letters_are_kept_until_they_are_discarded(
    ledger: Ledger, server: redis.Redis
) -> None:
    letters = ledger.dead_letters
    assert (letters.all(), letters.get("a"), letters.discard("a")) == ([], None, False)
    for one in (letter("late", 2.0), letter("early", 1.0)):
        ledger.end(one.job_id, claimed(ledger, one.job_id).token, "failed", "", one)
    assert [one.job_id for one in letters.all()] == ["early", "late"]
    assert letters.get("late") == letter("late", 2.0)
    assert server.ttl(KEY) == -1
    assert letters.discard("early")
    assert letters.all() == [letter("late", 2.0)]


# A server that does not do what it should

ALL: dict[str, Callable[[Ledger], object]] = {
    "claim": lambda ledger: ledger.claim("new", RECORD, "nonce"),
    "renew": lambda ledger: ledger.renew([("job", 1)]),
    "save": lambda ledger: ledger.save("job", 1, NEXT),
    "release": lambda ledger: ledger.release("job", 1, NEXT),
    "commit": lambda ledger: ledger.commit("job", 1, "{}"),
    "committed": lambda ledger: ledger.committed("job"),
    "leave": lambda ledger: ledger.leave([("job", 1)]),
    "end": lambda ledger: ledger.end("job", 1, "failed", "x" * 1000, letter("job", 1.0)),
    "cancel": lambda ledger: ledger.cancel("new", running=True),
    "record": lambda ledger: ledger.record("job"),
    "ended": lambda ledger: ledger.ended("job"),
    "announce": lambda ledger: ledger.announce("here", live=True),
    "live_places": lambda ledger: ledger.live_places(),
    "order_stop": lambda ledger: ledger.order_stop("here", "p"),
    "stopped": lambda ledger: ledger.stopped("here", ["p"]),
    "dead_letters.all": lambda ledger: ledger.dead_letters.all(),
    "dead_letters.get": lambda ledger: ledger.dead_letters.get("job"),
    "dead_letters.count": lambda ledger: ledger.dead_letters.count(),
    "dead_letters.discard": lambda ledger: ledger.dead_letters.discard("job"),
}

# What these answer of a job that was never put aside.
NOTHING_THERE = ("dead_letters.discard", "dead_letters.count")


def test_every_method_is_tried() -> None:
    methods = {name for name in vars(Ledger) if not name.startswith("_")} - {"close"}
    letters = {f"dead_letters.{name}" for name in vars(DeadLetters) if not name.startswith("_")}
    assert methods | letters == ALL.keys()


@pytest.mark.parametrize("name", ALL)
def test_a_redis_that_is_gone_is_unavailable(name: str) -> None:
    with Ledger("redis://127.0.0.1:1") as ledger:
        with pytest.raises(BrokerUnavailableError, match="Redis did not answer"):
            ALL[name](ledger)


@pytest.fixture
def full(ledger: Ledger, server: redis.Redis) -> Iterator[Ledger]:
    """A server that was filled up while this job ran."""
    assert claimed(ledger).token == 1
    server.config_set("maxmemory", 1)
    with pytest.raises(redis.OutOfMemoryError):
        server.set("x", "x")
    yield ledger
    server.config_set("maxmemory", 0)


def test_a_redis_that_is_full_is_named(full: Ledger, server: redis.Redis) -> None:
    with pytest.raises(BrokerFullError, match=r"out of memory \(maxmemory"):
        full.order_stop("here", "p")
    server.config_set("maxmemory", 0)
    full.order_stop("here", "p")
    assert full.announce("here", live=True) == ["p"]


@pytest.mark.parametrize("name", sorted(ALL.keys() - {"order_stop"}))
def test_what_is_had_can_be_kept_and_ended_on_a_redis_that_is_full(full: Ledger, name: str) -> None:
    # A lease that could not be renewed, or an end that could not be recorded, would have the job
    # run again.
    assert ALL[name](full) not in (False, {("job", 1): LOST}) or name in NOTHING_THERE


def test_a_job_goes_from_claim_to_end_on_a_redis_that_is_full(full: Ledger) -> None:
    token = claimed(full, "new").token
    assert full.renew([("new", token)]) == {("new", token): OURS}
    assert full.save("new", token, NEXT)
    assert full.end("new", token, "succeeded", "new/manifest.json")
    assert full.ended("new") == Ended("succeeded", "new/manifest.json")
