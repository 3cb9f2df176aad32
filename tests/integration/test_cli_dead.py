"""`comfyfleet dead`, on letters that are put there by hand; nothing runs what is replayed."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from sandbox.valkey import Valkey
from tasks.result import Attempt
from tests.command_line import Comfyfleet
from tests.stack import bars
from workers.ledger import Ledger
from workers.ledger.dead_letters import KEY, DeadLetter, DeadLetters

pytestmark = pytest.mark.integration

PICTURE = "data:image/png;base64," + "QUJD" * 1000


@pytest.fixture
def broker(valkey: Valkey) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(valkey.url) as client:
        client.flushall()
        yield client


@pytest.fixture
def letters(valkey: Valkey, broker: redis.Redis) -> Iterator[DeadLetters]:  # noqa: ARG001
    with Ledger(valkey.url) as ledger:
        yield ledger.dead_letters


@pytest.fixture
def comfyfleet(valkey: Valkey) -> Comfyfleet:
    return Comfyfleet({"CELERY_BROKER_URL": valkey.url})


def put(letters: DeadLetters, one: DeadLetter) -> None:
    # As the ledger does when a job ends so.
    letters._redis.hset(KEY, one.job_id, one.model_dump_json())


def letter(job_id: str, at: float = 1_700_000_000.123, **request: Any) -> DeadLetter:
    attempts = tuple(
        Attempt(
            number=n,
            instance="http://gpu:8188",
            prompt_id=f"p{n}",
            error="ComfyUIUnavailableError: [bold]gone[/bold]\x1b[31m",
            seconds=1.25,
        )
        for n in (1, 2)
    )
    return DeadLetter(
        job_id=job_id,
        request={"workflow": bars(1), "metadata": {"a": "b"}, **request},
        priority=3,
        attempts=attempts,
        error=attempts[-1].error or "",
        at=at,
    )


def queued(broker: redis.Redis, queue: str = "comfyui\x06\x163") -> list[tuple[str, Any]]:
    """The ids and arguments of the jobs that wait, oldest first."""
    jobs = []
    for message in reversed(broker.lrange(queue, 0, -1)):  # type: ignore[arg-type]
        content = json.loads(message)
        _, arguments, _ = json.loads(base64.b64decode(content["body"]))
        jobs.append((content["headers"]["id"], arguments))
    return jobs


def test_list(letters: DeadLetters, comfyfleet: Comfyfleet) -> None:
    assert comfyfleet("dead", "list").stdout == "No job was put aside.\n"
    assert comfyfleet("dead", "list", "--json").json == []
    put(letters, letter("younger", at=1_700_000_060.0))
    put(letters, letter("older"))
    listed = comfyfleet("dead", "list", "--json").json
    assert [one["job_id"] for one in listed] == ["older", "younger"]
    assert [len(one["attempts"]) for one in listed] == [2, 2]
    assert "request" not in listed[0]
    printed = comfyfleet("dead", "list").stdout
    assert printed.index("older") < printed.index("younger")
    assert "2023-11-14 22:13:20 UTC" in printed
    # As it is, but for what a terminal would obey.
    assert "ComfyUIUnavailableError: [bold]gone[/bold]" in printed
    assert "\x1b" not in printed


def test_show(letters: DeadLetters, comfyfleet: Comfyfleet) -> None:
    workflow = {"1": {"class_type": "A", "inputs": {"deep": [{"picture": PICTURE}], "text": "x"}}}
    put(letters, letter("one", inputs={"a.png": PICTURE}, workflow=workflow))
    for arguments in ((), ("--json",)):
        printed = comfyfleet("dead", "show", "one", *arguments).stdout
        assert printed.count("data:... (4,022 characters)") == 2
        assert "QUJD" not in printed
        assert '"text": "x"' in printed
        assert "http://gpu:8188" in printed
        full = comfyfleet("dead", "show", "one", "--full", *arguments).stdout
        assert full.count(PICTURE) == 2
    shown = comfyfleet("dead", "show", "one", "--full", "--json").json
    assert DeadLetter.model_validate(shown) == letters.get("one")


def test_a_replay_is_a_new_job_with_an_ancestor(
    letters: DeadLetters, broker: redis.Redis, comfyfleet: Comfyfleet
) -> None:
    old = letter("old", output={"prefix": "x"}, timeout_seconds=9.0)
    put(letters, old)
    replayed = comfyfleet("dead", "replay", "old", "--json").json
    assert replayed["replay_of"] == "old"
    ((job_id, arguments),) = queued(broker)
    assert job_id == replayed["job_id"] != "old"
    assert arguments == {**old.request, "metadata": {"a": "b", "replay_of": "old"}}
    assert letters.all() == []
    # The replay may be put aside, too.
    put(letters, letter(job_id))
    again = comfyfleet("dead", "replay", job_id)
    assert again.stdout == f"{queued(broker)[1][0]}\n"
    assert queued(broker)[1][1]["metadata"]["replay_of"] == job_id


def test_all_are_replayed(
    letters: DeadLetters, broker: redis.Redis, comfyfleet: Comfyfleet
) -> None:
    for n in range(3):
        put(letters, letter(f"job {n}", at=float(n)))
    lines = comfyfleet("dead", "replay", "--all", "--json").stdout.splitlines()
    replayed = {one["job_id"]: one["replay_of"] for one in map(json.loads, lines)}
    assert list(replayed) == [job_id for job_id, _ in queued(broker)]
    assert list(replayed.values()) == ["job 0", "job 1", "job 2"]
    assert letters.all() == []


def test_two_replays_of_one_letter_are_one_job(
    letters: DeadLetters, broker: redis.Redis, comfyfleet: Comfyfleet
) -> None:
    put(letters, letter("one"))
    both = [comfyfleet.start("dead", "replay", "one") for _ in range(2)]
    ended = [comfyfleet.end(process) for process in both]
    assert {one.code for one in ended} <= {0, 1}
    # As after a crash between the broker's answer and the letter's end.
    put(letters, letter("one"))
    (printed,) = {one.stdout for one in (*ended, comfyfleet("dead", "replay", "one"))} - {""}
    assert {job_id for job_id, _ in queued(broker)} == {printed.strip()}
    # Put aside once more it is another letter, and another job.
    put(letters, letter("one", at=5.0))
    assert comfyfleet("dead", "replay", "one").stdout != printed


def test_what_cannot_be_replayed_stays(
    letters: DeadLetters, broker: redis.Redis, comfyfleet: Comfyfleet
) -> None:
    put(letters, letter("full"))
    broker.config_set("maxmemory", "1mb")
    try:
        assert "Redis is out of memory" in comfyfleet.refused("dead", "replay", "full")
    finally:
        broker.config_set("maxmemory", "0")
    put(letters, letter("newer", answers=42))
    assert "unknown argument 'answers'" in comfyfleet.refused("dead", "replay", "newer")
    elsewhere = Comfyfleet(
        {
            "CELERY_BROKER_URL": str(comfyfleet.environment["CELERY_BROKER_URL"]),
            "CELERY_RESULT_BACKEND": "nothing://here",
        }
    )
    assert "job full could not be enqueued" in elsewhere.refused("dead", "replay", "full")
    put(letters, letter("signed").model_copy(update={"is_signed": True}))
    assert "no MESSAGE_SECRET to sign" in comfyfleet.refused("dead", "replay", "signed")
    assert {one.job_id for one in letters.all()} == {"full", "newer", "signed"}
    assert queued(broker) == []


def test_discard(letters: DeadLetters, broker: redis.Redis, comfyfleet: Comfyfleet) -> None:
    for name in ("a", "b", "c"):
        put(letters, letter(name))
    assert comfyfleet("dead", "discard", "b", "--json").json == {"job_id": "b"}
    assert {one.job_id for one in letters.all()} == {"a", "c"}
    assert sorted(comfyfleet("dead", "discard", "--all").stdout.split()) == ["a", "c"]
    assert letters.all() == []
    assert broker.keys("comfyui*") == []


@pytest.mark.parametrize("command", ["show", "replay", "discard"])
def test_a_job_that_is_not_there(
    letters: DeadLetters, comfyfleet: Comfyfleet, command: str
) -> None:
    assert letters.all() == []
    assert comfyfleet.refused("dead", command, "x") == (
        "comfyfleet: no job x was put aside; comfyfleet dead list shows which were"
    )


@pytest.mark.parametrize("arguments", [(), ("x", "--all")])
@pytest.mark.parametrize("command", ["replay", "discard"])
def test_one_or_all(
    letters: DeadLetters, comfyfleet: Comfyfleet, command: str, arguments: tuple[str, ...]
) -> None:
    put(letters, letter("x"))
    ended = comfyfleet("dead", command, *arguments)
    assert ended.code == 2
    assert "name a job, or all of them with --all" in ended.stderr
    assert len(letters.all()) == 1


def test_a_letter_that_nobody_can_read_hides_no_other(
    broker: redis.Redis, letters: DeadLetters, comfyfleet: Comfyfleet
) -> None:
    broker.hset(KEY, "x", "{}")
    assert letters.all() == []
    assert "an entry that cannot be read" in comfyfleet.refused("dead", "show", "x")


@pytest.mark.parametrize(
    "arguments", [("dead", "list"), ("dead", "show", "x"), ("dead", "replay", "x"), ("result", "x")]
)
def test_a_redis_that_is_away(arguments: tuple[str, ...]) -> None:
    url = "redis://user:secret@127.0.0.1:1/0"
    sentence = Comfyfleet({"CELERY_BROKER_URL": url}).refused(*arguments)
    assert "did not answer (ConnectionError)" in sentence
    assert "is redis://user:********@127.0.0.1:1/0" in sentence
