"""What Redis knows of the fleet for whoever asks: latest jobs, stories, workers, the backlog."""

import json
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from celery import Celery

from sandbox.valkey import Valkey
from settings import Settings
from tasks import enqueue
from tasks.errors import BrokerFullError, BrokerUnavailableError, InvalidRequestError
from tasks.errors import PromptLostError as Lost
from tasks.result import Attempt
from tests.stack import bars
from workers.broker.backlog import read_backlog
from workers.broker.scripts import LANES, lane_name
from workers.broker.waiting import latest_waiting, waiting_among
from workers.ledger import Claimed, Ledger, Record
from workers.ledger import ledger as module
from workers.ledger.fleet import GONE_SECONDS, WORKERS, WorkerStatus
from workers.ledger.jobs import ENDS, JobEntry
from workers.ledger.outcomes import JobFailed, failure_detail
from workers.ledger.scripts import JOBS, MOST_INDEXED
from workers.ledger.stories import STORIES
from workers.observing import AttemptBegan, FileStored, JobEnded
from workers.observing.story import Line, line_of

pytestmark = pytest.mark.integration

ATTEMPT = Attempt(number=1, instance="http://a", prompt_id="p", error="Lost: it", seconds=1.0)
RECORD = Record(place="a", instance="http://b", client_id="c", folder="f", enqueued_at=5.0)
TRIED = RECORD.model_copy(update={"attempts": (ATTEMPT,)})


@pytest.fixture
def settings(valkey: Valkey) -> Settings:
    return Settings.model_validate({"CELERY_BROKER_URL": valkey.url})


def claim(ledger: Ledger, job_id: str, record: Record = RECORD) -> int:
    verdict = ledger.claim(job_id, record, uuid.uuid4().hex)
    assert isinstance(verdict, Claimed)
    return verdict.token


def only(ledger: Ledger) -> JobEntry:
    (entry,) = ledger.jobs.latest(limit=10)
    assert ledger.jobs.entry(entry.job_id) == entry
    return entry


# Jobs


def test_a_job_is_indexed_wherever_it_goes(ledger: Ledger) -> None:
    before = time.time() - 0.001
    token = claim(ledger, "j")
    entry = only(ledger)
    assert (entry.state, entry.instance, entry.attempts) == ("running", "http://b", 1)
    assert (entry.enqueued_at, entry.error) == (5.0, None)
    assert entry.begun_at is not None
    assert before <= entry.begun_at <= entry.since <= time.time()

    assert ledger.release("j", token, TRIED)
    entry = only(ledger)
    assert (entry.state, entry.instance, entry.attempts) == ("waiting", "http://a", 1)
    assert entry.error == "Lost: it"

    token = claim(ledger, "j")
    assert (only(ledger).state, only(ledger).attempts) == ("running", 2)
    assert ledger.end("j", token, "succeeded", "manifest")
    entry = only(ledger)
    assert (entry.state, entry.instance, entry.attempts) == ("succeeded", "http://b", 2)
    # What comes again finds it ended, and changes nothing.
    ledger.claim("j", RECORD, "n")
    assert only(ledger) == entry


def test_a_failure_tells_its_error_and_its_attempts(ledger: Ledger) -> None:
    token = claim(ledger, "j", TRIED)
    detail = failure_detail(JobFailed(Lost("it is gone"), [ATTEMPT, ATTEMPT]))
    assert ledger.end("j", token, "failed", detail)
    entry = only(ledger)
    assert (entry.state, entry.error) == ("failed", "PromptLostError: it is gone")
    assert (entry.attempts, entry.instance) == (2, "http://a")


def test_a_job_that_was_cancelled_before_it_was_begun(ledger: Ledger) -> None:
    ledger.cancel("j", running=True)
    assert ledger.jobs.latest(limit=10) == []
    assert ledger.jobs.entry("j") is None
    assert ledger.jobs.known(["j"]) == frozenset()
    cancelled = ledger.claim("j", RECORD, "n")
    assert ledger.end("j", cancelled.token, "cancelled")  # type: ignore[union-attr]
    entry = only(ledger)
    assert (entry.state, entry.begun_at, entry.attempts) == ("cancelled", None, 0)
    assert ledger.jobs.known(["j", "k"]) == {"j"}


def test_a_job_whose_worker_vanished_does_not_run(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LEASE_SECONDS", 0.0)
    claim(ledger, "j", TRIED)
    entry = only(ledger)
    # The attempt that ended with it counts.
    assert (entry.state, entry.attempts, entry.instance) == ("waiting", 2, "http://b")


def test_who_lost_a_job_moves_it_nowhere(ledger: Ledger) -> None:
    claim(ledger, "j")
    assert not ledger.end("j", 99, "failed", "")
    assert not ledger.release("j", 99, TRIED)
    assert only(ledger).state == "running"


def test_the_latest_come_first_and_can_be_chosen(ledger: Ledger, server: redis.Redis) -> None:
    for job_id in "abc":
        token = claim(ledger, job_id)
        ledger.end(job_id, token, "succeeded", "m")
    claim(ledger, "d")
    # Changes of one millisecond have no order.
    for at, (job_id, state) in enumerate(zip("abcd", [*ENDS[:1] * 3, "running"], strict=True)):
        server.zadd(JOBS + state, {job_id: 1000.0 * (at + 1)})
    jobs = ledger.jobs
    assert [one.job_id for one in jobs.latest(limit=10)] == ["d", "c", "b", "a"]
    assert [one.job_id for one in jobs.latest(limit=2)] == ["d", "c"]
    assert [one.job_id for one in jobs.latest(["succeeded"], limit=2)] == ["c", "b"]
    assert [one.job_id for one in jobs.latest(limit=10, since=2.5)] == ["d", "c"]
    assert jobs.latest(["failed"], limit=10) == []
    assert jobs.count(ENDS, since=1.5) == {"succeeded": 2, "failed": 0, "cancelled": 0}
    # What the ledger has forgotten does not go on.
    server.delete("comfyfleet:job:d")
    assert [one.job_id for one in jobs.latest(limit=2)] == ["c", "b"]


def test_ten_thousand_are_kept_and_read_at_once(ledger: Ledger, server: redis.Redis) -> None:
    pipe = server.pipeline(transaction=False)
    now = time.time() * 1000
    old = {f"old-{number}": now - 100_000 + number for number in range(MOST_INDEXED + 50)}
    pipe.zadd(f"{JOBS}succeeded", old)
    for number in range(MOST_INDEXED + 50):
        pipe.hset(f"comfyfleet:job:old-{number}", mapping={"outcome": "succeeded", "detail": "m"})
    pipe.execute()
    ledger.end("new", claim(ledger, "new"), "succeeded", "m")
    assert server.zcard(f"{JOBS}succeeded") == MOST_INDEXED
    entries = ledger.jobs.latest(limit=MOST_INDEXED)
    assert len(entries) == MOST_INDEXED
    assert [one.job_id for one in entries[:2]] == ["new", f"old-{MOST_INDEXED + 49}"]


def test_what_is_too_old_leaves_the_index(ledger: Ledger, server: redis.Redis) -> None:
    server.zadd(f"{JOBS}failed", {"ancient": 1000.0})
    ledger.end("new", claim(ledger, "new"), "failed", "")
    assert server.zrange(f"{JOBS}failed", 0, -1) == ["new"]


def test_many_at_once_are_each_in_one_state(ledger: Ledger, server: redis.Redis) -> None:
    def live(number: int) -> None:
        job_id = f"j{number}"
        token = claim(ledger, job_id)
        if number % 3 == 0:
            ledger.release(job_id, token, TRIED)
        elif number % 3 == 1:
            ledger.end(job_id, token, "succeeded", "m")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(live, range(60)))
    sizes = {state: server.zcard(JOBS + state) for state in ("waiting", "running", "succeeded")}
    assert sizes == {"waiting": 20, "running": 20, "succeeded": 20}


# Stories


def told(event: AttemptBegan | FileStored | JobEnded) -> Line:
    line = line_of(event, "w")
    assert line is not None
    return line


def began(job_id: str, number: int = 1) -> Line:
    return told(AttemptBegan(job_id, number, prompt_id="p", instance="i", start="submit"))


def test_stories_are_kept_apart_and_in_order(ledger: Ledger, server: redis.Redis) -> None:
    ledger.stories.tell([began("a"), began("b"), told(JobEnded("a", "succeeded"))])
    ledger.stories.tell([began("a", 2)])
    lines = ledger.stories.of("a")
    assert [line["event"] for line in lines] == ["attempt_began", "ended", "attempt_began"]
    assert len(ledger.stories.of("b")) == 1
    assert ledger.stories.of("nobody") == []
    assert 0 < server.pttl("comfyfleet:story:a") <= 7 * 24 * 3600 * 1000
    # Somebody else's line must not hide the others.
    server.rpush("comfyfleet:story:b", "{")
    assert len(ledger.stories.of("b")) == 1


def test_what_is_written_again_after_a_lost_answer_is_told_once(ledger: Ledger) -> None:
    # As the client does by itself if a server takes lines and then falls silent.
    lines = [began("a"), told(JobEnded("a", "succeeded"))]
    for _ in range(2):
        ledger.stories.tell(lines)
    assert [line["event"] for line in ledger.stories.of("a")] == ["attempt_began", "ended"]


def test_a_story_is_bounded_and_files_take_no_room_from_the_rest(
    ledger: Ledger, server: redis.Redis
) -> None:
    files = [told(FileStored("a", "1", f"k{n}", 1, float(n), 0.1)) for n in range(300)]
    ledger.stories.tell([began("a"), *files, told(JobEnded("a", "succeeded"))])
    lines = ledger.stories.of("a")
    assert len(lines) == 101
    assert {"attempt_began", "ended"} <= {line["event"] for line in lines}
    ledger.stories.tell([began("a", number) for number in range(300)])
    assert server.llen("comfyfleet:story:a") == 200


def test_only_the_latest_jobs_have_stories(ledger: Ledger, server: redis.Redis) -> None:
    pipe = server.pipeline(transaction=False)
    pipe.zadd(STORIES, {f"old-{number}": number for number in range(MOST_INDEXED)})
    pipe.rpush("comfyfleet:story:old-0", "{}")
    pipe.rpush("comfyfleet:story:old-1", "{}")
    pipe.execute()
    ledger.stories.tell([began("new")])
    assert server.zcard(STORIES) == MOST_INDEXED
    assert not server.exists("comfyfleet:story:old-0")
    assert server.exists("comfyfleet:story:old-1")


def test_a_refused_job_is_among_those_that_failed(ledger: Ledger) -> None:
    ledger.stories.tell([told(JobEnded("r", "failed", InvalidRequestError("no such argument")))])
    (entry,) = ledger.jobs.latest(["failed"], limit=5)
    assert (entry.job_id, entry.error) == ("r", "InvalidRequestError: no such argument")
    assert (entry.attempts, entry.begun_at) == (0, None)
    # If it comes again, and better, it is one job all the same.
    claim(ledger, "r")
    assert only(ledger).state == "running"


# Workers


def status(name: str, **changes: object) -> WorkerStatus:
    return WorkerStatus.model_validate(
        {
            "id": f"{name}-1",
            "worker": name,
            "instance": "i",
            "state": "ready",
            "slots": 1,
            "version": "1",
            "started_at": 1.0,
            **changes,
        }
    )


def test_workers_are_known_while_they_tell_and_a_little_longer(
    ledger: Ledger, server: redis.Redis
) -> None:
    ledger.fleet.tell(status("b"))
    ledger.fleet.tell(status("a", state="busy"))
    heard = ledger.fleet.all()
    assert [(one.status.worker, one.state) for one in heard] == [("a", "busy"), ("b", "ready")]
    assert heard[0].status == status("a", state="busy")
    assert all(0 <= one.seconds < 5 for one in heard)

    def age(name: str, seconds: float) -> None:
        at = int((time.time() - seconds) * 1000)
        server.hset(WORKERS, f"{name}-1", f"{at} {status(name).model_dump_json()}")

    age("a", GONE_SECONDS + 5)
    age("c", 3600)
    server.hset(WORKERS, "x", "nothing of ours")
    server.hset(WORKERS, "y", f"{int(time.time() * 1000)} {{}}")
    heard = ledger.fleet.all()
    assert [(one.status.worker, one.state) for one in heard] == [("a", "gone"), ("b", "ready")]
    # For good.
    assert set(server.hkeys(WORKERS)) == {"a-1", "b-1", "y"}
    ledger.fleet.forget("b-1")
    assert [one.status.worker for one in ledger.fleet.all()] == ["a"]


def test_a_full_server_still_knows_its_workers_and_takes_no_stories(
    ledger: Ledger, server: redis.Redis, settings: Settings
) -> None:
    ledger.fleet.tell(status("a"))
    server.lpush("comfyui", '{"headers": {"id": "x"}}')
    server.config_set("maxmemory", "1")
    try:
        with pytest.raises(BrokerFullError):
            ledger.stories.tell([began("j")])
        ledger.fleet.tell(status("b"))
        assert len(ledger.fleet.all()) == 2
        assert read_backlog(settings).depth == 1
    finally:
        server.config_set("maxmemory", "0")


# The backlog


def test_nothing_waits(settings: Settings, server: redis.Redis) -> None:
    backlog = read_backlog(settings)
    assert backlog.waiting == {"0": 0, "3": 0, "6": 0, "9": 0}
    assert (backlog.depth, backlog.oldest_seconds, backlog.taken, backlog.lanes) == (0, None, 0, {})
    # Neither does it leave anything.
    assert server.dbsize() == 0


@pytest.fixture
def producer(valkey: Valkey) -> Iterator[Celery]:
    app = Celery(broker=valkey.url, backend=valkey.url)
    yield app
    app.close()


def test_what_waits_is_counted_by_priority_with_its_lanes(
    settings: Settings, server: redis.Redis, producer: Celery
) -> None:
    old = {"enqueued_at": time.time() - 500.0}
    first = enqueue(bars(1), celery=producer, priority="normal", headers=old)
    later = enqueue(bars(2), celery=producer, priority="normal")
    urgent = enqueue(bars(3), celery=producer)
    last = enqueue(bars(4), celery=producer, priority="batch")
    server.hset("comfyfleet:unacked", "tag", "[]")
    backlog = read_backlog(settings)
    assert backlog.waiting == {"0": 1, "3": 2, "6": 0, "9": 1}
    assert (backlog.depth, backlog.taken) == (4, 1)
    assert backlog.oldest_seconds == pytest.approx(500.0, abs=10.0)

    # Its list in a lane.
    server.hset(LANES + "comfyui", "lane1", json.dumps({"unable": [], "models": "", "worth": 1}))
    server.rename("comfyui\x06\x163", lane_name("comfyui", "lane1") + "\x06\x163")
    moved = read_backlog(settings)
    assert (moved.waiting, moved.lanes) == (backlog.waiting, {"lane1": 2})
    assert moved.oldest_seconds == pytest.approx(500.0, abs=10.0)

    ids = {one.id for one in (first, later, urgent, last)}
    url = settings.ledger_url
    assert waiting_among(url, [*ids, "nobody"]) == ids
    waiting = {one.job_id: one for one in latest_waiting(url, 10)}
    assert set(waiting) == ids
    assert (waiting[last.id].priority, waiting[last.id].where) == (9, "queue")
    assert waiting[first.id].where == "lane"
    assert waiting[first.id].enqueued_at == pytest.approx(old["enqueued_at"])
    # Of each list the latest ones.
    assert {one.job_id for one in latest_waiting(url, 1)} == ids - {first.id}


@pytest.mark.parametrize("order", [("body", "headers"), ("headers", "body")])
def test_headers_are_found_on_either_side_of_a_large_body(
    settings: Settings, server: redis.Redis, order: tuple[str, str]
) -> None:
    parts = {"body": "x" * 3_000_000, "headers": {"enqueued_at": time.time() - 300.0, "id": "j"}}
    server.lpush("comfyui", json.dumps({name: parts[name] for name in order}))
    assert read_backlog(settings).oldest_seconds == pytest.approx(300.0, abs=10.0)


def test_a_message_without_a_time_waits_since_it_was_seen_to_be_next(
    settings: Settings, server: redis.Redis, producer: Celery
) -> None:
    def send(job_id: str) -> None:
        producer.send_task("comfyui.run_workflow", kwargs={}, task_id=job_id, queue="comfyui")

    send("one")
    assert read_backlog(settings).oldest_seconds == 0.0
    seen = server.hget("comfyfleet:next", "comfyui")
    assert seen is not None
    assert seen.startswith("one ")
    server.hset("comfyfleet:next", "comfyui", f"one {time.time() - 60:.3f}")
    send("two")
    assert read_backlog(settings).oldest_seconds == pytest.approx(60.0, abs=5.0)
    # Another one is next.
    server.rpop("comfyui")
    assert read_backlog(settings).oldest_seconds == pytest.approx(0.0, abs=1.0)
    server.rpop("comfyui")
    assert read_backlog(settings).oldest_seconds is None
    assert not server.exists("comfyfleet:next")


@pytest.mark.parametrize("entry", ["", "[", "5", '{"headers": 5}', "\x00\xff" * 100])
def test_what_is_no_message_is_counted_all_the_same(
    settings: Settings, server: redis.Redis, entry: str
) -> None:
    server.lpush("comfyui", entry)
    backlog = read_backlog(settings)
    assert (backlog.depth, backlog.oldest_seconds) == (1, 0.0)
    assert latest_waiting(settings.ledger_url, 5) == []


def test_what_waits_by_the_hundred_thousand_costs_no_more(
    settings: Settings, server: redis.Redis
) -> None:
    message = json.dumps({"body": "x" * 50, "headers": {"id": "j", "enqueued_at": 1.0}})
    for _ in range(10):
        server.lpush("comfyui", *[message] * 10_000)
    took = []
    for _ in range(10):
        server.config_resetstat()
        assert read_backlog(settings).depth == 100_000
        stats = server.info("commandstats")
        assert "cmdstat_lrange" not in stats
        took.append(stats["cmdstat_eval"]["usec"])
    # By the server's own clock, which goes on while others have its CPU: no list is gone through.
    assert min(took) < 20_000


def test_a_broker_that_is_away_is_named() -> None:
    away = Settings.model_validate({"CELERY_BROKER_URL": "redis://127.0.0.1:1/0"})
    with pytest.raises(BrokerUnavailableError, match="did not answer"):
        read_backlog(away)
