"""The outbox on a real Valkey: who sends what, when again, and what is left of it."""

import time
from collections.abc import Callable
from typing import TypeVar

import pytest
import redis

from sandbox.valkey import Valkey
from tests.command_line import Comfyfleet
from workers.ledger import Claimed, Ledger, Record
from workers.ledger import outbox as module
from workers.ledger.outbox import Notice, Outbox, Taken

pytestmark = pytest.mark.integration

T = TypeVar("T")

BOX = "comfyfleet:webhooks:"
RECORD = Record(place="here", instance="http://here", client_id="c", folder="job", since=1.0)
WEEK = 7 * 24 * 3600


def claimed(ledger: Ledger) -> Claimed:
    verdict = ledger.claim("job", RECORD, "nonce")
    assert isinstance(verdict, Claimed)
    return verdict


def taken(outbox: Outbox) -> Taken:
    found = outbox.take()
    assert found is not None
    return found


def awaited(ask: Callable[[], T | None]) -> T:
    deadline = time.monotonic() + 10
    while (found := ask()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


def notice(name: str, origin: str = "https://a:443", body: str = "{}") -> Notice:
    return Notice(name, f"job of {name}", "job.failed", origin, f"{origin}/{name}", body)


def drained(outbox: Outbox) -> list[str]:
    """The ids of all that can be taken now, in this order."""
    found = []
    while (one := outbox.take()) is not None:
        found.append(one.notice.id)
    return found


def test_an_end_puts_its_notice_into_the_outbox_and_a_lost_claim_none(ledger: Ledger) -> None:
    claim = claimed(ledger)
    assert not ledger.end("job", claim.token + 1, "failed", notice=notice("n"))
    assert ledger.outbox.take() is None
    assert ledger.end("job", claim.token, "failed", "{}", notice=notice("n"))
    found = taken(ledger.outbox)
    assert (found.notice, found.tries, found.failures) == (notice("n"), 0, 0)


def test_the_same_notice_waits_once(ledger: Ledger) -> None:
    for _ in range(2):
        assert ledger.outbox.put(notice("n"))
    assert drained(ledger.outbox) == ["n"]


def test_hosts_take_turns_and_none_gets_more_than_its_share(ledger: Ledger) -> None:
    outbox = ledger.outbox
    for number in range(6):
        outbox.put(notice(f"a{number}", "https://a:443"))
    for number in range(2):
        outbox.put(notice(f"b{number}", "https://b:443"))
    found = drained(outbox)
    assert sorted(found) == ["a0", "a1", "a2", "a3", "b0", "b1"]
    assert found.index("b1") < 5
    outbox.delivered("a0")
    assert drained(outbox) == ["a4"]


def test_a_host_that_fails_is_tried_by_one_at_a_time(ledger: Ledger, server: redis.Redis) -> None:
    outbox = ledger.outbox
    for number in range(3):
        outbox.put(notice(f"n{number}"))
    first, second = taken(outbox), taken(outbox)
    # Together they are one failure of the host.
    outbox.postpone(first, "500", 60.0, 60.0)
    outbox.postpone(second, "500", 60.0, 60.0)
    outbox.put(notice("n3"))
    assert outbox.take() is None
    # As if the host's pause were over.
    server.hset(f"{BOX}host:https://a:443", "gate", 0)
    server.zadd(f"{BOX}hosts", {"https://a:443": 0})
    probe = taken(outbox)
    assert (probe.notice.id, probe.failures) == ("n2", 1)
    assert outbox.take() is None
    # One that is well is asked for everything that is due.
    outbox.delivered("n2")
    assert drained(outbox) == ["n3"]
    assert server.hget(f"{BOX}notice:n0", "error") == "500"


def test_what_its_sender_did_not_settle_is_sent_by_another(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LEASE_SECONDS", 0.05)
    outbox = ledger.outbox
    outbox.put(notice("n"))
    slow = taken(outbox)
    again = awaited(outbox.take)
    assert again.token == slow.token + 1
    # Who comes too late decides nothing, but that it has been delivered stays true.
    outbox.postpone(slow, "x", 60.0, 60.0)
    outbox.give_up(slow, "x", None)
    assert [(one.state, one.tries) for one in outbox.all()] == [("waiting", 0)]
    outbox.delivered("n")
    assert outbox.all() == []
    outbox.postpone(again, "x", 0.0, None)
    assert outbox.all() == []


def test_what_is_given_up_is_kept_and_can_be_sent_again(ledger: Ledger) -> None:
    outbox = ledger.outbox
    outbox.put(notice("n"))
    outbox.give_up(taken(outbox), "410", None)
    assert outbox.take() is None
    (dead,) = outbox.all()
    assert (dead.state, dead.error, dead.tries) == ("given up", "410", 1)
    assert outbox.retry("n")
    again = taken(outbox)
    assert (again.tries, again.age < 5) == (0, True)
    assert outbox.discard("n")
    assert not outbox.discard("n")
    assert not outbox.retry("n")
    assert outbox.all() == []


def test_nothing_is_left_of_what_is_settled(ledger: Ledger, server: redis.Redis) -> None:
    outbox = ledger.outbox
    for name in ("delivered", "discarded", "given up"):
        outbox.put(notice(name, f"https://{name}:443"))
    for _ in range(3):
        outbox.postpone(taken(outbox), "500", 0.0, 0.001)
    outbox.delivered("delivered")
    outbox.discard("discarded")
    for one in outbox.all():
        outbox.retry(one.id)
    outbox.give_up(awaited(outbox.take), "x", 60.0)
    kept = {f"{BOX}{name}" for name in ("notice:given up", "dead", "bytes", "dead_bytes")}
    assert set(server.keys(f"{BOX}*")) == kept
    assert server.get(f"{BOX}bytes") == "0"
    # For a week.
    server.zadd(f"{BOX}dead", {"given up": (time.time() - WEEK - 60) * 1000})
    assert outbox.all() == []
    assert set(server.keys(f"{BOX}*")) == {f"{BOX}bytes", f"{BOX}dead_bytes"}
    assert server.get(f"{BOX}dead_bytes") == "0"


def test_a_host_that_never_comes_back_fills_no_memory(
    ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    large = "x" * 1_000_000
    put = [ledger.outbox.put(notice(f"n{number}", body=large)) for number in range(35)]
    assert put == [True] * 33 + [False] * 2
    claim = claimed(ledger)
    # The job has ended all the same.
    assert ledger.end("job", claim.token, "failed", "{}", notice=notice("n", body=large))
    assert ledger.ended("job") is not None
    assert "its webhook is not sent: too much waits for https://a:443" in caplog.text
    assert ledger.outbox.put(notice("other", "https://b:443"))


def test_of_what_is_given_up_the_newest_is_kept_within_bounds(
    ledger: Ledger, server: redis.Redis
) -> None:
    outbox = ledger.outbox
    for number in range(35):
        outbox.put(notice(f"n{number}", body="x" * 1_000_000))
        outbox.give_up(taken(outbox), "410", None)
    kept = [one.id for one in outbox.all()]
    assert kept == [f"n{number}" for number in reversed(range(2, 35))]
    assert int(server.get(f"{BOX}dead_bytes") or 0) < 34_000_000
    assert server.get(f"{BOX}bytes") == "0"
    for name in kept:
        assert outbox.discard(name)
    assert server.get(f"{BOX}dead_bytes") == "0"


def test_what_was_given_up_is_seen_however_much_waits(ledger: Ledger) -> None:
    outbox = ledger.outbox
    for name in ("dead", "waiting", "also waiting"):
        outbox.put(notice(name, f"https://{name.replace(' ', '')}:443"))
        if name == "dead":
            outbox.give_up(taken(outbox), "410", None)
    assert [one.state for one in outbox.all(most=1)] == ["waiting", "given up"]


def test_people_see_send_again_and_forget_what_was_not_delivered(
    ledger: Ledger, valkey: Valkey
) -> None:
    comfyfleet = Comfyfleet({"CELERY_BROKER_URL": valkey.url})
    assert comfyfleet("webhooks", "list").stdout == "No webhook waits, and none was given up.\n"
    for name in ("n1", "n2"):
        ledger.outbox.put(notice(name, "https://u.example:443"))
        ledger.outbox.give_up(taken(ledger.outbox), "the receiver answered 410", None)
    ledger.outbox.put(Notice("n3", "j", "job.failed", "https://a", "https://a/?key=hidden", "{}"))
    shown = comfyfleet("webhooks", "list").stdout
    for text in ("n1", "given up", "answered 410", "job of n2", "waiting", "https://a/?..."):
        assert text in shown
    assert "hidden" not in shown
    assert comfyfleet("webhooks", "retry", "n1").stdout == "n1\n"
    ended = comfyfleet("webhooks", "discard", "--all", "--json")
    assert ended.json == {"id": "n2"}
    listed = comfyfleet("webhooks", "list", "--json").json
    assert {one["id"]: one["state"] for one in listed} == {"n1": "waiting", "n3": "waiting"}
    assert "no webhook n2 waits or was given up" in comfyfleet.refused("webhooks", "retry", "n2")
    assert comfyfleet("webhooks", "retry").code == 2
