"""A worker is killed: what its prompt has cost is not paid again where that can be helped."""

import json
import time

import pytest
import requests
from celery.result import AsyncResult

from sandbox.proxy import Mode
from tests.faults.scenes import (
    PICK_UP_SECONDS,
    Fleet,
    errors,
    eventually,
    executing,
    history,
    is_idle,
    sampled,
    step_of,
    together,
    was_interrupted,
)
from tests.stack import bars
from workers.execution.job import prompt_id

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]


def taken_over(fleet: Fleet) -> tuple[str, AsyncResult]:
    """A prompt that a worker has adopted and hears of, and its job."""
    server = fleet.server()
    killed = fleet.worker(server)
    job = fleet.send(bars(1, seconds=24, steps=240))
    prompt = executing(server)
    eventually(lambda: step_of(job) > 0)
    killed.kill()
    # Nobody tells of progress now but who takes over.
    last = step_of(job)
    fleet.worker(server)
    eventually(lambda: step_of(job) > last)
    return prompt, job


@together
def test_a_running_prompt_is_taken_over_with_its_progress(fleet: Fleet) -> None:
    prompt, job = taken_over(fleet)
    assert job.state == "PROGRESS"
    assert (job.info["stage"], job.info["steps"]) == ("executing", 240)
    result = job.get(timeout=30)
    assert errors(result) == ["WorkerDiedError", None]
    assert [attempt["prompt_id"] for attempt in result["attempts"]] == [prompt, prompt]
    assert fleet.executions() == {prompt: 1}


@together
def test_the_progress_of_a_prompt_that_was_taken_over_names_its_node(fleet: Fleet) -> None:
    prompt, job = taken_over(fleet)
    assert fleet.executions() == {prompt: 1}
    assert (job.info["node_id"], job.info["class_type"]) == ("1", "BarsRender")


@together
def test_a_prompt_that_ended_without_a_worker_is_collected(fleet: Fleet) -> None:
    server = fleet.server()
    killed = fleet.worker(server)
    job = fleet.send(bars(1, seconds=6, steps=60))
    prompt = executing(server)
    killed.kill()
    assert not history(server, prompt)
    eventually(lambda: history(server, prompt))
    began = time.monotonic()
    fleet.worker(server)

    result = job.get(timeout=60)
    assert time.monotonic() - began < PICK_UP_SECONDS
    assert errors(result) == ["WorkerDiedError", None]
    assert fleet.executions() == {prompt: 1}


@together
def test_a_job_goes_elsewhere_and_its_first_prompt_is_stopped(fleet: Fleet) -> None:
    slow, fast = fleet.server(step_seconds=0.5), fleet.server()
    killed = fleet.worker(slow)
    job = fleet.send(sampled(steps=120))
    first = executing(slow)
    fleet.worker(fast)
    killed.kill()
    killed_at = time.time()

    result = job.get(timeout=60)
    assert fast.execution_log()[0].began - killed_at < PICK_UP_SECONDS
    assert errors(result) == ["WorkerDiedError", None]
    assert [attempt["instance"] for attempt in result["attempts"]] == [slow.url, fast.url]
    assert eventually(lambda: was_interrupted(slow, first))
    assert slow.executions() == {first: 1}
    assert fast.executions() == {result["prompt_id"]: 1}


@together
def test_what_ended_on_the_first_server_is_collected_from_elsewhere(fleet: Fleet) -> None:
    first, second = fleet.server(), fleet.server()
    store = fleet.proxy(fleet.stack.seaweedfs.url)
    killed = fleet.worker(first, S3_ENDPOINT_URL=f"http://{store.address}")
    job = fleet.send(bars(1, seconds=5))
    prompt = executing(first)
    store.set(Mode.REFUSE)
    fleet.worker(second)
    eventually(lambda: "output of node 2" in killed.log.read_text())
    killed.kill()

    result = job.get(timeout=60)
    assert errors(result) == ["WorkerDiedError", None]
    assert (result["instance"], result["prompt_id"]) == (first.url, prompt)
    assert fleet.client.content(result["outputs"][0]["key"])
    assert fleet.executions() == {prompt: 1}


@together
def test_a_job_that_was_committed_touches_no_gpu(fleet: Fleet) -> None:
    first, second = fleet.server(), fleet.server()
    killed = fleet.worker(first)
    job = fleet.send(bars(1, seconds=5, steps=50))
    prompt = executing(first)
    # Without it the worker commits, and can tell nobody.
    fleet.valkey.kill()
    eventually(lambda: "manifest.json" in fleet.stored(job.id))
    killed.kill()
    fleet.valkey.start()
    fleet.reconnect()
    fleet.worker(second)

    result = fleet.job(job.id).get(timeout=60)
    assert result == fleet.client.manifest(result)
    assert (result["instance"], errors(result)) == (first.url, [None])
    assert fleet.executions() == {prompt: 1}


@together
def test_a_redelivered_job_that_is_committed_though_the_ledger_has_forgotten_touches_no_gpu(
    fleet: Fleet,
) -> None:
    server = fleet.server()
    job = fleet.send(bars(1))
    (message,) = fleet.redis.lrange("comfyui", 0, -1)  # type: ignore[misc]
    fleet.worker(server)
    result = job.get(timeout=30)
    assert fleet.redis.delete(f"comfyfleet:job:{job.id}") == 1
    job.forget()

    # As who had it before gives it back.
    again = json.loads(message)
    again["properties"]["delivery_info"]["redelivered"] = True
    fleet.redis.rpush("comfyui", json.dumps(again))
    assert fleet.job(job.id).get(timeout=30) == result
    assert fleet.executions() == {prompt_id(job.id, 1): 1}


@together
def test_a_prompt_is_stopped_by_the_next_worker_of_a_server_that_nobody_reached(
    fleet: Fleet,
) -> None:
    slow, fast = fleet.server(step_seconds=0.5), fleet.server()
    killed = fleet.worker(slow)
    job = fleet.send(sampled(steps=120))
    first = executing(slow)
    killed.kill()
    # Whoever takes the job over cannot stop its prompt.
    slow.process.pause()
    fleet.worker(fast, COMFYUI_READ_TIMEOUT_SECONDS="2")
    result = job.get(timeout=60)
    slow.process.resume()
    assert requests.get(f"{slow.url}/queue", timeout=5).json()["queue_running"]

    fleet.worker(slow)
    assert eventually(lambda: was_interrupted(slow, first))
    assert is_idle(slow)
    assert fast.executions() == {result["prompt_id"]: 1}
    assert slow.executions() == {first: 1}
