"""The broker goes away or is full: no job is lost, and none that runs is run again."""

import json
import time

import pytest
import redis

from sandbox.valkey import Valkey
from tests.faults.scenes import Fleet, errors, eventually, executing, history, together
from tests.stack import bars
from workers.execution.job import prompt_id

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]


def survives(fleet: Fleet, *, kill: bool) -> None:
    """Jobs that run and jobs that wait end after the broker was restarted, each executed once."""
    server = fleet.server()
    worker = fleet.worker(server)
    jobs = [fleet.send(bars(number, seconds=1, steps=10)).id for number in range(6)]
    executing(server)
    # One executes, and one is taken ahead.
    eventually(lambda: len(fleet.waiting()) <= 4)
    (fleet.valkey.kill if kill else fleet.valkey.stop)()
    fleet.valkey.start()
    fleet.reconnect()

    results = [fleet.job(job_id).get(timeout=60) for job_id in jobs]
    assert [errors(result) for result in results] == [[None]] * 6
    assert fleet.executions() == {result["prompt_id"]: 1 for result in results}
    assert eventually(fleet.has_drained)
    assert worker.returncode is None


@together
def test_a_broker_that_is_stopped_and_started(fleet: Fleet) -> None:
    survives(fleet, kill=False)


@together
def test_a_broker_that_is_killed_and_started(fleet: Fleet) -> None:
    survives(fleet, kill=True)


@together
def test_a_broker_that_is_away_for_longer_than_its_messages_are_valid(fleet: Fleet) -> None:
    servers = [fleet.server(), fleet.server()]
    workers = [fleet.worker(server, WORKER_SLOTS="1") for server in servers]
    # One ends while nobody can be told, the other one after that.
    jobs = [fleet.send(bars(1, seconds=seconds, steps=100)).id for seconds in (5, 29)]
    for server in servers:
        executing(server)
    waits = fleet.send(bars(2)).id
    fleet.valkey.stop()
    # Beyond lease and visibility timeout, and beyond the waits between attempts to reconnect.
    time.sleep(25)
    fleet.valkey.start()
    fleet.reconnect()

    results = [fleet.job(job_id).get(timeout=60) for job_id in (*jobs, waits)]
    assert [errors(result) for result in results] == [[None]] * 3
    assert fleet.executions() == {result["prompt_id"]: 1 for result in results}
    assert eventually(fleet.has_drained)
    assert [worker.returncode for worker in workers] == [None, None]


@together
def test_a_job_that_waits_for_its_retry_outlives_the_broker(fleet: Fleet) -> None:
    server = fleet.server()
    worker = fleet.worker(server)
    job = fleet.send(bars(1, seconds=5, steps=50)).id
    first = executing(server)
    server.kill()
    server.start()
    eventually(lambda: "attempt 1 failed, again in" in worker.log.read_text())
    fleet.valkey.kill()
    fleet.valkey.start()
    fleet.reconnect()
    result = fleet.job(job).get(timeout=60)
    assert errors(result) == ["PromptLostError", None]
    assert fleet.executions() == {first: 1, result["prompt_id"]: 1}
    assert eventually(fleet.has_drained)


@together
def test_a_full_broker_is_named_and_has_the_result_when_there_is_room(fleet: Fleet) -> None:
    server = fleet.server()
    worker = fleet.worker(server)
    job = fleet.send(bars(1, seconds=5))
    prompt = executing(server)
    fleet.redis.config_set("maxmemory", 1)
    eventually(lambda: history(server, prompt))
    eventually(lambda: "Redis is out of memory (maxmemory is reached" in worker.log.read_text())
    eventually(lambda: "manifest.json" in fleet.stored(job.id))
    assert not job.ready()
    fleet.redis.config_set("maxmemory", 0)

    result = job.get(timeout=60)
    assert errors(result) == [None]
    assert fleet.executions() == {prompt: 1}
    assert eventually(fleet.has_drained)
    assert fleet.send(bars(2)).get(timeout=30)["outputs"]
    assert worker.returncode is None


@together
def test_the_message_of_a_result_that_a_full_backend_refuses_is_kept(fleet: Fleet) -> None:
    server = fleet.server()
    valkey = Valkey(fleet.stack.folder("valkey"))
    worker = fleet.worker(server, CELERY_RESULT_BACKEND=valkey.url)
    with redis.Redis.from_url(valkey.url, decode_responses=True) as backend:
        backend.config_set("maxmemory", 1)
        job = fleet.send(bars(1))
        told = "a result cannot be stored: Redis is out of memory"
        eventually(lambda: told in worker.log.read_text())
        assert fleet.redis.hlen("comfyfleet:unacked") == 1
        backend.config_set("maxmemory", 0)
        stored = eventually(lambda: backend.get(f"celery-task-meta-{job.id}"))
        assert json.loads(str(stored))["status"] == "SUCCESS"
    assert eventually(fleet.has_drained)
    assert fleet.executions() == {prompt_id(job.id, 1): 1}
    worker.stop()
    valkey.stop()


@together
def test_a_broker_that_refuses_writes_for_a_while(fleet: Fleet) -> None:
    server = fleet.server()
    worker = fleet.worker(server)
    jobs = [fleet.send(bars(number, seconds=1, steps=10)).id for number in range(3)]
    executing(server)
    # As after the loss of a replica that it must have.
    fleet.redis.config_set("min-replicas-to-write", 1)
    eventually(lambda: worker.log.read_text().count("Cannot connect") >= 3)
    fleet.redis.config_set("min-replicas-to-write", 0)

    results = [fleet.job(job_id).get(timeout=60) for job_id in jobs]
    assert [errors(result) for result in results] == [[None]] * 3
    assert fleet.executions() == {result["prompt_id"]: 1 for result in results}
    # It waits between its attempts, and says the same each time.
    assert "Traceback" not in worker.log.read_text()
