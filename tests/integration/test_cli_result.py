"""`comfyfleet result`: from the backend, the ledger, the manifest, and of jobs that go on."""

import json
from collections.abc import Iterator

import pytest
import redis

from sandbox.stack import Stack
from sandbox.valkey import Valkey
from tasks.result import Attempt
from tests.command_line import Comfyfleet
from tests.stack import Client, bars
from workers.ledger import Ledger, Record

pytestmark = pytest.mark.integration


class Fleet:
    """One worker with one slot, on a broker of its own that may be made to forget."""

    def __init__(self, stack: Stack) -> None:
        self.valkey = Valkey(stack.folder("valkey"))
        own = {"CELERY_BROKER_URL": self.valkey.url, "CELERY_RESULT_BACKEND": self.valkey.url}
        self.environment = {**stack.environment(), **own, "S3_PREFIX": "fleet"}
        self.client = Client(self.environment)
        self.comfyfleet = Comfyfleet(self.environment)
        self.redis = redis.Redis.from_url(self.valkey.url)
        slot = {"WORKER_SLOTS": "1", "S3_PREFIX": "fleet"}
        self.worker = stack.worker(stack.stand_in().url, {**own, **slot})

    def store(self, job_id: str, status: str, result: object) -> None:
        """Have the result backend know this of a job."""
        meta = {"task_id": job_id, "status": status, "result": result}
        self.redis.set(f"celery-task-meta-{job_id}", json.dumps(meta))

    def expire(self, job_id: str) -> None:
        """Have the result backend forget a job."""
        assert self.redis.delete(f"celery-task-meta-{job_id}") == 1

    def forget(self, job_id: str) -> None:
        """Have the ledger forget a job."""
        assert self.redis.delete(f"comfyfleet:job:{job_id}") == 1

    def close(self) -> None:
        self.client.close()
        self.redis.close()
        self.worker.kill()
        self.valkey.stop()


@pytest.fixture(scope="module")
def fleet(stack: Stack) -> Iterator[Fleet]:
    one = Fleet(stack)
    yield one
    one.close()


def test_a_result_outlives_backend_and_ledger(fleet: Fleet, seed: int) -> None:
    output = {"prefix": "a/b", "presign_seconds": 60}
    handle = fleet.client.send(bars(seed), output=output, metadata={"a": "b"})
    job_id, result = handle.id, handle.get(timeout=30)
    url = result["outputs"][0]["url"]

    assert fleet.comfyfleet("result", job_id, "--json").json == {
        "job_id": job_id,
        "state": "SUCCESS",
        "result": result,
    }
    printed = fleet.comfyfleet("result", job_id)
    assert (printed.code, printed.stderr) == (0, "")
    assert result["outputs"][0]["uri"] in printed.stdout
    assert result["instance"] in printed.stdout
    # A URL is long: it may be on more than one line.
    assert "url" in printed.stdout

    fleet.expire(job_id)
    # Who may read the manifest need not be allowed to hand out files.
    kept = {**result, "outputs": [{**one, "url": None} for one in result["outputs"]]}
    assert url is not None
    assert fleet.comfyfleet("result", job_id, "--json").json["result"] == kept
    assert "url" not in fleet.comfyfleet("result", job_id).stdout

    fleet.forget(job_id)
    sentence = fleet.comfyfleet.refused("result", job_id, code=4)
    assert "perhaps give its output.prefix, if it had one, to --prefix" in sentence
    found = fleet.comfyfleet("result", job_id, "--prefix", "/a/b/", "--json")
    assert (found.code, found.json["result"]) == (0, kept)


def test_a_forgotten_job_without_a_prefix_is_found(fleet: Fleet, seed: int) -> None:
    handle = fleet.client.send(bars(seed), options={"task_id": f"odd/id {seed}"})
    result = handle.get(timeout=30)
    fleet.expire(handle.id)
    fleet.forget(handle.id)
    assert fleet.comfyfleet("result", handle.id, "--json").json["result"] == result
    no_bucket = {**fleet.environment, "S3_BUCKET": ""}
    sentence = Comfyfleet(no_bucket).refused("result", handle.id, code=4)
    assert "perhaps give the bucket of its manifest to S3_BUCKET" in sentence


def test_a_failure_has_its_attempts_even_when_it_has_expired(fleet: Fleet, seed: int) -> None:
    handle = fleet.client.send(bars(seed, mode="oom"))
    error = handle.get(timeout=30, propagate=False)
    assert type(error).__name__ == "OutOfMemoryError"

    def check() -> None:
        told = fleet.comfyfleet("result", handle.id, "--json")
        assert (told.code, told.json["state"]) == (1, "FAILURE")
        assert told.json["error"]["type"] == "OutOfMemoryError"
        assert "node 1 (BarsRender)" in told.json["error"]["message"]
        attempts = told.json["attempts"]
        assert [one["number"] for one in attempts] == [1, 2]
        printed = fleet.comfyfleet("result", handle.id)
        assert printed.code == 1
        assert f"job {handle.id} failed: OutOfMemoryError: node 1" in printed.stderr
        for attempt in attempts:
            assert attempt["prompt_id"] in printed.stdout
            assert attempt["error"] in printed.stdout

    check()
    fleet.expire(handle.id)
    check()
    fleet.forget(handle.id)
    fleet.comfyfleet.refused("result", handle.id, code=4)


def test_a_refused_request_has_failed_without_an_attempt(fleet: Fleet, seed: int) -> None:
    handle = fleet.client.send(bars(seed), timeout_seconds=-1)
    handle.get(timeout=30, propagate=False)
    assert "failed: InvalidRequestError: argument" in fleet.comfyfleet.refused("result", handle.id)


def test_jobs_that_go_on_say_how_far_they_are(fleet: Fleet, seed: int) -> None:
    running = fleet.client.send(bars(seed, seconds=600, steps=6000))
    fleet.worker.wait_until(lambda: running.state == "PROGRESS" and running.info["step"])
    # The one slot is taken: these wait in the queue, as urgent as can be or hardly.
    waiting = [
        fleet.client.send(bars(seed + 100 + n), options={"priority": priority})
        for n, priority in enumerate((0, 3, 9))
    ]
    told = fleet.comfyfleet("result", running.id, "--json")
    assert (told.code, told.json["state"]) == (3, "PROGRESS")
    assert told.json["progress"]["class_type"] == "BarsRender"
    assert told.json["attempts"] == []
    sentence = fleet.comfyfleet.refused("result", running.id, code=3)
    assert "has not finished: executing, " in sentence
    assert "node 1 (BarsRender), step " in sentence
    for job in waiting:
        sentence = fleet.comfyfleet.refused("result", job.id, code=3)
        assert sentence == f"comfyfleet: job {job.id} waits in the queue"

    running.revoke(terminate=True)
    fleet.worker.wait_until(lambda: running.state == "REVOKED")
    for job in waiting:
        job.get(timeout=30)
    told = fleet.comfyfleet("result", running.id, "--json")
    assert (told.code, told.json["state"]) == (1, "REVOKED")
    fleet.expire(running.id)
    assert fleet.comfyfleet.refused("result", running.id) == (
        f"comfyfleet: job {running.id} was cancelled"
    )


def test_a_job_that_a_worker_holds_for_later_waits(fleet: Fleet, seed: int) -> None:
    job = fleet.client.send(bars(seed), options={"countdown": 3600})

    def held() -> tuple[object, object]:
        return fleet.redis.llen("comfyui"), fleet.redis.hlen("comfyfleet:unacked")

    # The job before may not have been acknowledged yet.
    fleet.worker.wait_until(lambda: held() == (0, 1))
    assert "waits in the queue" in fleet.comfyfleet.refused("result", job.id, code=3)


def test_a_job_between_attempts_says_why(
    fleet: Fleet, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nobody renews it while these commands run.
    monkeypatch.setattr("workers.ledger.ledger.LEASE_SECONDS", 600.0)
    job_id = f"again-{seed}"
    error = {"exc_type": "PromptLostError", "exc_message": ["gone"], "exc_module": "tasks.errors"}
    fleet.store(job_id, "RETRY", error)
    first = Attempt(
        number=1,
        instance="http://a",
        prompt_id="p",
        error="PromptLostError: gone",
        seconds=1.5,
    )
    record = Record(attempts=(first,), place="a", instance="http://a", client_id="c", folder="f")
    with Ledger(fleet.valkey.url) as ledger:
        ledger.claim(job_id, record, "nonce")
    told = fleet.comfyfleet("result", job_id, "--json")
    assert (told.code, told.json["state"]) == (3, "RETRY")
    assert told.json["attempts"] == [first.model_dump()]
    printed = fleet.comfyfleet("result", job_id)
    assert "http://a" in printed.stdout
    assert printed.stderr.endswith("waits for its next attempt after PromptLostError: gone\n")
    fleet.expire(job_id)
    printed = fleet.comfyfleet("result", job_id)
    assert (printed.code, "a worker has begun it" in printed.stderr) == (3, True)


def test_what_is_none_of_ours_is_named(fleet: Fleet, seed: int) -> None:
    fleet.store(f"other-{seed}", "SUCCESS", {"sum": 5})
    sentence = fleet.comfyfleet.refused("result", f"other-{seed}")
    assert sentence == "comfyfleet: the result backend has the id, but of another task than ours"
    key = f"fleet/garbage-{seed}/manifest.json"
    fleet.client.s3.put_object(Bucket=fleet.client.bucket, Key=key, Body=b"[")
    sentence = fleet.comfyfleet.refused("result", f"garbage-{seed}")
    assert sentence == f"comfyfleet: {key} is no manifest of ours"


def test_a_job_that_nobody_knows(fleet: Fleet) -> None:
    # Neither does an entry that is no message keep it from saying so.
    fleet.redis.lpush("comfyui\x06\x166", "[", "[]", "5", '{"headers": 5}')
    told = fleet.comfyfleet("result", "nobody", "--json")
    assert (told.code, told.json) == (4, {"job_id": "nobody", "state": "UNKNOWN"})
    fleet.redis.delete("comfyui\x06\x166")


def test_a_manifest_that_is_gone_or_a_store_that_is_away(fleet: Fleet, seed: int) -> None:
    handle = fleet.client.send(bars(seed))
    key = handle.get(timeout=30)["manifest"]["key"]
    fleet.expire(handle.id)
    with Ledger(fleet.valkey.url) as ledger:
        assert ledger.ended(handle.id) is not None
    fleet.client.s3.delete_object(Bucket=fleet.client.bucket, Key=key)
    assert f"its manifest {key} is gone" in fleet.comfyfleet.refused("result", handle.id)
    away = Comfyfleet({**fleet.environment, "S3_ENDPOINT_URL": "http://127.0.0.1:1"})
    assert "did not answer" in away.refused("result", handle.id)
