"""The commands on jobs and on the fleet, in each state that a job can have."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis

from sandbox.processes import ChildProcess
from sandbox.stack import Stack
from tasks.result import Attempt
from tests.command_line import Comfyfleet
from tests.stack import Client, bars
from workers.ledger import Claimed, Ledger, Record
from workers.ledger.fleet import WORKERS, WorkerStatus

pytestmark = pytest.mark.integration

ATTEMPT = Attempt(number=1, instance="http://a", prompt_id="p", error="Lost: it", seconds=1.0)
RECORD = Record(attempts=(ATTEMPT,), place="a", instance="http://a", client_id="c", folder="f")
ROOT = Path(__file__).parents[2]
FLAT = ("stage", "value", "node_id", "class_type", "step", "steps", "instance", "error")


@pytest.fixture
def comfyfleet(stack: Stack, running_worker: ChildProcess) -> Comfyfleet:
    assert running_worker.returncode is None
    return Comfyfleet(stack.environment())


@pytest.fixture
def ledger(stack: Stack) -> Iterator[Ledger]:
    with Ledger(stack.valkey.url) as one:
        yield one


def until_told(comfyfleet: Comfyfleet, job_id: str, event: str) -> Any:
    """The job's story, once a line of that kind has been written."""
    deadline = time.monotonic() + 20.0
    while True:
        story = comfyfleet("show", job_id, "--json").json
        if event in [line["event"] for line in story["timeline"]]:
            return story
        assert time.monotonic() < deadline, story


def test_a_job_that_succeeded(
    comfyfleet: Comfyfleet, client: Client, stack: Stack, seed: int
) -> None:
    handle = client.send(bars(seed, batch_size=2))
    result = handle.get(timeout=30)
    told = comfyfleet("status", handle.id, "--json")
    assert (told.code, told.stderr) == (0, "")
    flat = {"job_id": handle.id, "state": "SUCCESS", **dict.fromkeys(FLAT)}
    assert told.json == {**flat, "value": 1.0, "instance": stack.comfyui_url}
    assert comfyfleet("status", handle.id, "--watch").code == 0

    story = until_told(comfyfleet, handle.id, "ended")
    events = [(line["event"], line.get("stage")) for line in story["timeline"]]
    assert events[:3] == [
        ("taken", None),
        ("attempt_began", None),
        ("stage_ended", "staging"),
    ]
    assert events[-1] == ("ended", None)
    assert {("stage_ended", "executing"), ("stage_ended", "committing")} < set(events)
    assert [one["uri"] for one in story["files"]] == [one["uri"] for one in result["outputs"]]
    assert (story["state"], story["attempts"]) == ("SUCCESS", result["attempts"])
    assert (story["manifest"], story["timings"]) == (result["manifest"], result["timings"])
    assert (story["error"], story["progress"]) == (None, None)

    # Also when the result has expired.
    with redis.Redis.from_url(stack.valkey.url) as broker:
        assert broker.delete(f"celery-task-meta-{handle.id}") == 1
    assert comfyfleet("show", handle.id, "--json").json == story
    shown = comfyfleet("show", handle.id)
    assert shown.code == 0
    for text in (
        "taken by ",
        "attempt 1 begins on ",
        "executing took",
        result["outputs"][1]["uri"],
    ):
        assert text in shown.stdout
    assert comfyfleet("status", handle.id).stdout == (
        f"job {handle.id} succeeded on {stack.comfyui_url}\n"
    )
    listed = comfyfleet("jobs", "--state", "success", "--limit", "1", "--json").json
    assert listed == [
        {
            "job_id": handle.id,
            "state": "SUCCESS",
            "since": listed[0]["since"],
            "enqueued_at": None,
            "begun_at": listed[0]["begun_at"],
            "instance": stack.comfyui_url,
            "attempts": 1,
            "error": None,
            "priority": None,
        }
    ]


def test_a_job_that_failed(comfyfleet: Comfyfleet, client: Client, seed: int) -> None:
    handle = client.send(bars(seed, mode="error"))
    handle.get(timeout=30, propagate=False)
    told = comfyfleet("status", handle.id, "--json")
    assert (told.code, told.json["state"]) == (1, "FAILURE")
    assert told.json["error"]["type"] == "NodeFailedError"
    watched = comfyfleet("status", handle.id, "--watch", "--json")
    assert (watched.code, json.loads(watched.stdout)) == (1, told.json)
    story = until_told(comfyfleet, handle.id, "ended")
    assert (story["state"], story["error"]) == ("FAILURE", told.json["error"])
    assert len(story["attempts"]) == 1
    shown = comfyfleet("show", handle.id)
    assert (shown.code, "failed: NodeFailedError" in shown.stderr) == (1, True)
    (listed,) = comfyfleet("jobs", "--state", "failed", "--limit", "1", "--json").json
    assert (listed["job_id"], listed["state"]) == (handle.id, "FAILURE")
    assert listed["error"].startswith("NodeFailedError: ")
    told = comfyfleet("cancel", handle.id, "--json")
    assert told.code == 1
    assert told.json == [{"job_id": handle.id, "outcome": "ended", "how": "failed"}]


def test_a_job_that_was_refused_has_a_story(
    comfyfleet: Comfyfleet, client: Client, seed: int
) -> None:
    handle = client.send(bars(seed), timeout_seconds=-1)
    handle.get(timeout=30, propagate=False)
    story = until_told(comfyfleet, handle.id, "ended")
    assert (story["state"], story["error"]["type"]) == ("FAILURE", "InvalidRequestError")
    (listed,) = comfyfleet("jobs", "--state", "failed", "--limit", "1", "--json").json
    assert (listed["job_id"], listed["attempts"]) == (handle.id, 0)
    assert listed["error"].startswith("InvalidRequestError: ")


def test_jobs_that_run_are_seen_and_stopped(
    comfyfleet: Comfyfleet, client: Client, running_worker: ChildProcess, stack: Stack, seed: int
) -> None:
    # Longer than all these commands take.
    running = client.send(bars(seed, seconds=600, steps=6000))
    running_worker.wait_until(lambda: running.state == "PROGRESS" and running.info["step"])
    told = comfyfleet("status", running.id, "--json")
    assert (told.code, told.json["state"]) == (3, "PROGRESS")
    assert set(told.json) == {"job_id", "state", *FLAT}
    assert (told.json["class_type"], told.json["instance"]) == ("BarsRender", stack.comfyui_url)
    assert "executing, " in comfyfleet("status", running.id).stdout
    story = until_told(comfyfleet, running.id, "stage_ended")
    assert (story["state"], story["files"], story["attempts"]) == ("PROGRESS", [], [])
    shown = comfyfleet("show", running.id)
    assert (shown.code, "attempt 1 begins on" in shown.stdout) == (3, True)
    assert "has not finished: executing" in shown.stderr
    (listed,) = comfyfleet("jobs", "--state", "running", "--json").json
    assert (listed["job_id"], listed["attempts"]) == (running.id, 1)

    def busy() -> bool:
        (worker,) = comfyfleet("workers", "--json").json
        return bool(worker["jobs"]) and worker["jobs"][0]["stage"] == "executing"

    running_worker.wait_until(busy)
    (worker,) = comfyfleet("workers", "--json").json
    assert (worker["state"], worker["slots"], worker["instance"]) == ("busy", 12, stack.comfyui_url)
    assert (worker["version"], worker["comfyui_version"]) == ("0.1.0", "0.8.0")
    assert worker["jobs"][0]["job_id"] == running.id
    shown = comfyfleet("workers").stdout
    assert f"{running.id} executing" in shown
    assert "1/12" in shown
    told = comfyfleet("top", "--json").json
    assert set(told) == {"at", "workers", "queue", "ended", "failures"}
    assert (told["workers"][0]["state"], told["queue"]["taken"]) == ("busy", 1)
    printed = comfyfleet("top")
    assert (printed.code, "1 jobs in 12 slots" in printed.stdout) == (0, True)
    # Nobody's terminal: nothing that only one obeys.
    assert "\x1b" not in printed.stdout

    watching = comfyfleet.start("status", running.id, "--watch")
    watching.await_stderr("executing, ")
    kept = comfyfleet("cancel", running.id, "--keep-running")
    assert (kept.code, kept.stdout) == (0, f"job {running.id} runs, and goes on\n")
    told = comfyfleet("cancel", running.id, "--json")
    assert told.code == 0
    assert told.json == [{"job_id": running.id, "outcome": "stopping", "how": None}]
    ended = watching.end()
    assert (ended.code, ended.stdout) == (1, f"job {running.id} was cancelled\n")
    until_told(comfyfleet, running.id, "ended")
    told = comfyfleet("cancel", running.id)
    assert (told.code, told.stderr) == (0, f"job {running.id} was cancelled before\n")
    (listed,) = comfyfleet("jobs", "--state", "REVOKED", "--limit", "1", "--json").json
    assert listed["job_id"] == running.id


def test_a_job_between_attempts(
    comfyfleet: Comfyfleet, ledger: Ledger, client: Client, seed: int
) -> None:
    job_id = f"between-{seed}"
    claim = ledger.claim(job_id, RECORD, uuid.uuid4().hex)
    assert isinstance(claim, Claimed)
    ledger.release(job_id, claim.token, RECORD, 3600.0)
    (listed,) = comfyfleet("jobs", "--state", "retrying", "--json").json
    assert (listed["job_id"], listed["state"], listed["error"]) == (job_id, "RETRY", "Lost: it")
    told = comfyfleet("status", job_id, "--json")
    assert (told.code, told.json["instance"]) == (3, "http://a")
    told = comfyfleet("cancel", job_id, "--keep-running")
    assert told.stdout == f"job {job_id} is cancelled: it will not be begun\n"
    # Whoever takes it ends it.
    handle = client.send(bars(seed), options={"task_id": job_id})
    assert handle.get(timeout=30, propagate=False) is not None
    assert handle.state == "REVOKED"
    until_told(comfyfleet, job_id, "ended")
    assert ledger.jobs.latest(["waiting"], limit=5) == []


def test_a_worker_that_vanished_is_shown_as_gone(
    comfyfleet: Comfyfleet, stack: Stack, running_worker: ChildProcess
) -> None:
    running_worker.wait_until(lambda: len(comfyfleet("workers", "--json").json) == 1)
    status = WorkerStatus(
        id="g", worker="gone@host", instance="i", state="busy", slots=1, version="1", started_at=1.0
    )
    with redis.Redis.from_url(stack.valkey.url) as broker:
        heard_at = time.time() - 60
        broker.hset(WORKERS, "g", f"{int(heard_at * 1000)} {status.model_dump_json()}")
        told = {one["worker"]: one for one in comfyfleet("workers", "--json").json}
        assert told["gone@host"]["state"] == "gone"
        # However long the command took.
        assert 59 < told["gone@host"]["heard_seconds_ago"] < time.time() - heard_at + 1
        assert "1 gone" in comfyfleet("top", "--once").stdout
        broker.hdel(WORKERS, "g")


@dataclass
class Idle:
    """A broker whose worker never comes."""

    comfyfleet: Comfyfleet
    client: Client
    redis: "redis.Redis[bytes]"


@pytest.fixture
def idle(stack: Stack) -> Iterator[Idle]:
    url = stack.valkey.url.replace("/0", "/8")
    environment = {
        **stack.environment(),
        "CELERY_BROKER_URL": url,
        "CELERY_RESULT_BACKEND": url,
    }
    client = Client(environment)
    with redis.Redis.from_url(url) as server:
        yield Idle(Comfyfleet(environment), client, server)
        server.flushdb()
    client.close()


def test_a_fleet_that_is_not_there(idle: Idle) -> None:
    for command, sentence in (
        ("jobs", "comfyfleet: no such job is known\n"),
        ("workers", "comfyfleet: no worker has told of itself lately\n"),
    ):
        assert idle.comfyfleet(command, "--json").json == []
        ended = idle.comfyfleet(command)
        assert (ended.code, ended.stdout, ended.stderr) == (0, "", sentence)
    assert idle.comfyfleet("queue", "--json").json == {
        "depth": 0,
        "waiting": {"0": 0, "3": 0, "6": 0, "9": 0},
        "lanes": {},
        "oldest_seconds": None,
        "taken": 0,
    }
    top = idle.comfyfleet("top")
    assert (top.code, "0 workers" in top.stdout) == (0, True)


def test_what_waits_is_listed_counted_and_cancelled(idle: Idle, seed: int) -> None:
    normal = idle.client.send(bars(seed), options={"priority": 3}).id
    urgent = idle.client.send(bars(seed)).id
    told = idle.comfyfleet("status", normal, "--json")
    assert told.code == 3
    assert told.json == {"job_id": normal, "state": "PENDING", **dict.fromkeys(FLAT)}
    shown = idle.comfyfleet("show", normal)
    assert (shown.code, shown.stderr) == (3, f"comfyfleet: job {normal} waits in the queue\n")
    listed = idle.comfyfleet("jobs", "--json").json
    assert {one["job_id"]: (one["state"], one["priority"]) for one in listed} == {
        normal: ("PENDING", 3),
        urgent: ("PENDING", 0),
    }
    queue = idle.comfyfleet("queue", "--json").json
    assert (queue["depth"], queue["waiting"]["3"], queue["taken"]) == (2, 1, 0)
    assert "3, normal" in idle.comfyfleet("queue").stdout

    told = idle.comfyfleet("cancel", normal, "nobody", "--json")
    assert told.code == 4
    assert told.json == [
        {"job_id": normal, "outcome": "cancelled", "how": None},
        {"job_id": "nobody", "outcome": "unknown", "how": None},
    ]
    # Of what is not known nothing is kept.
    assert idle.redis.exists(f"comfyfleet:job:{normal}") == 1
    assert idle.redis.exists("comfyfleet:job:nobody") == 0
    # Its message is still there, and will be thrown away.
    told = idle.comfyfleet("status", normal, "--json")
    assert (told.code, told.json["state"]) == (1, "REVOKED")
    for word, only in (("waiting", urgent), ("cancelled", normal)):
        listed = idle.comfyfleet("jobs", "--state", word, "--json").json
        assert [one["job_id"] for one in listed] == [only]


def test_of_a_job_that_nobody_knows_nothing_is_told(idle: Idle) -> None:
    told = idle.comfyfleet("status", "nobody", "--json")
    assert told.code == 4
    assert told.json == {"job_id": "nobody", "state": "UNKNOWN", **dict.fromkeys(FLAT)}
    assert idle.comfyfleet("status", "nobody", "--watch").code == 4
    told = idle.comfyfleet("show", "nobody", "--json")
    assert (told.code, told.json["state"], told.json["timeline"]) == (4, "UNKNOWN", [])


def test_who_stops_watching_stops_nothing(idle: Idle, seed: int) -> None:
    job_id = idle.client.send(bars(seed)).id
    watching = idle.comfyfleet.start("status", job_id, "--watch")
    watching.await_stderr("waits in the queue")
    os.kill(watching.pid, signal.SIGINT)
    ended = watching.end()
    assert (ended.code, ended.stderr) == (130, "waits in the queue\n")
    assert idle.redis.llen("comfyui") == 1


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["jobs", "--state", "faild"], 2, "did you mean 'failed'?"),
        (["jobs", "--since", "soon"], 2, "found 'soon', expected a time such as 15m"),
        (["jobs", "--limit", "0"], 2, "--limit"),
        (["cancel"], 2, "JOB..."),
        (["status"], 2, "JOB"),
        (["status", ""], 2, "found '', expected the id of a job"),
        (["cancel", "a", "\udcff"], 2, "expected the id of a job"),
        (["jobs", "--jsn"], 2, "No such option: --jsn"),
        (["dead", "shwo"], 2, "Did you mean 'show'"),
        (["nothing"], 2, "No such command 'nothing'"),
        (["statsu"], 2, "Did you mean 'status'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_typed_wrong_is_said(
    idle: Idle, arguments: list[str], code: int, sentence: str
) -> None:
    ended = idle.comfyfleet(*arguments)
    assert (ended.code, ended.stdout) == (code, "")
    told, hint = ended.stderr.splitlines()
    assert told.startswith("comfyfleet: ")
    assert sentence in told
    assert hint.startswith("Try 'comfyfleet ")


@pytest.mark.parametrize(
    "arguments", [("jobs",), ("workers",), ("queue",), ("top",), ("cancel", "x"), ("show", "x")]
)
def test_a_broker_that_is_away_is_named(arguments: tuple[str, ...]) -> None:
    away = Comfyfleet({"CELERY_BROKER_URL": "redis://:secret@127.0.0.1:1/0"})
    sentence = away.refused(*arguments)
    assert sentence.startswith("comfyfleet: Redis did not answer (ConnectionError); ")
    assert sentence.endswith("CELERY_BROKER_URL is redis://:********@127.0.0.1:1/0")


def test_a_rabbitmq_that_is_away_is_named_and_not_the_redis_beside_it(idle: Idle) -> None:
    away = Comfyfleet(
        {
            "CELERY_BROKER_URL": "amqp://fleet:secret@127.0.0.1:1//",
            "CELERY_RESULT_BACKEND": idle.client.celery.conf.result_backend,
        }
    )
    assert away.refused("queue") == (
        "comfyfleet: RabbitMQ did not answer (ConnectionRefusedError); CELERY_BROKER_URL is "
        "amqp://fleet:********@127.0.0.1:1//"
    )


def test_a_wrong_setting_ends_with_two() -> None:
    ended = Comfyfleet({"CELERY_BROKER_URL": "nonsense"})("queue")
    assert (ended.code, ended.stdout) == (2, "")
    assert ended.stderr.startswith("comfyfleet: wrong settings\nCELERY_BROKER_URL: found")


def test_a_reader_that_has_had_enough_is_told_nothing(idle: Idle) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as closed:
        done = subprocess.run(
            [Path(sys.executable).with_name("comfyfleet"), "queue", "--json"],
            env={**idle.comfyfleet.environment, "PYTHONPATH": str(ROOT)},
            stdout=closed,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, "")


def test_ids_and_states_are_completed(idle: Idle, stack: Stack, seed: int) -> None:
    url = stack.valkey.url.replace("/0", "/8")
    with Ledger(url) as ledger:
        claim = ledger.claim(f"complete-{seed}", RECORD, "n")
        assert isinstance(claim, Claimed)

    def offered(words: str) -> str:
        asked = {"_COMFYFLEET_COMPLETE": "complete_bash", "COMP_WORDS": words}
        count = {"COMP_CWORD": str(len(words.split()) - 1)}
        return Comfyfleet({**idle.comfyfleet.environment, **asked, **count})().stdout

    assert offered("comfyfleet status compl").split() == [f"complete-{seed}"]
    assert offered("comfyfleet jobs --state r").split() == ["running", "retrying"]
    assert offered("comfyfleet canc").split() == ["cancel"]
