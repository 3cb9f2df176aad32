"""Jobs that are revoked or run out of time: they end so, and the GPU is free at once."""

import signal
import time
from collections.abc import Iterator

import pytest
import requests

from sandbox.proxy import Mode
from sandbox.stack import Stack, StandIn
from tests.faults.scenes import (
    Fleet,
    errors,
    eventually,
    executing,
    is_idle,
    spoilt,
    step_of,
    together,
    was_interrupted,
)
from tests.stack import bars
from workers.execution.job import prompt_id

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]

# Of a minute that the job would take; some one where nothing else is going on.
AT_ONCE_SECONDS = 8.0


def is_pending(server: StandIn, prompt: str) -> bool:
    """Whether the server has a prompt in its queue that it has not begun."""
    queue = requests.get(f"{server.url}/queue", timeout=5).json()
    return prompt in {item[1] for item in queue["queue_pending"]}


@pytest.fixture
def fleet(stack: Stack) -> Iterator[Fleet]:
    with Fleet(stack) as one:
        yield one


# With one slot the next job waits for more than the GPU.
@pytest.mark.parametrize("slots", ["1", "2"])
def test_a_running_job_that_is_revoked_makes_room(fleet: Fleet, slots: str) -> None:
    server = fleet.server()
    fleet.worker(server, WORKER_SLOTS=slots)
    running = fleet.send(bars(1, seconds=60, steps=600))
    first = executing(server)
    following = fleet.send(bars(2))
    began = time.time()
    running.revoke(terminate=True)

    result = following.get(timeout=30)
    assert server.execution_log()[1].began - began < AT_ONCE_SECONDS
    assert eventually(lambda: running.state == "REVOKED")
    assert was_interrupted(server, first)
    assert fleet.executions() == {first: 1, result["prompt_id"]: 1}
    assert eventually(fleet.has_drained)


def test_a_job_out_of_time_fails_and_makes_room(fleet: Fleet) -> None:
    server = fleet.server()
    fleet.worker(server, WORKER_SLOTS="1")
    job = fleet.send(bars(1, seconds=60, steps=600), timeout_seconds=3)
    first = executing(server)
    following = fleet.send(bars(2))
    error = job.get(timeout=30, propagate=False)
    assert type(error).__name__ == "JobTimeoutError"
    assert "timeout_seconds" in str(error)
    assert errors(job.backend.get_task_meta(job.id)) == ["JobTimeoutError"]
    result = following.get(timeout=30)
    one, two = server.execution_log()
    assert two.began - one.began < 3 + AT_ONCE_SECONDS
    assert was_interrupted(server, first)
    assert fleet.executions() == {first: 1, result["prompt_id"]: 1}


@together
def test_a_job_that_waits_on_the_server_is_taken_from_its_queue(fleet: Fleet) -> None:
    server = fleet.server()
    fleet.worker(server, WORKER_SLOTS="2")
    running = fleet.send(bars(1, seconds=8, steps=80))
    executing(server)
    pending = fleet.send(bars(2))
    eventually(lambda: is_pending(server, prompt_id(pending.id, 1)))
    pending.revoke(terminate=True)
    eventually(lambda: pending.state == "REVOKED")
    assert not is_pending(server, prompt_id(pending.id, 1))
    # Nobody had to wait for the one before it.
    assert not running.ready()
    result = running.get(timeout=30)
    assert is_idle(server)
    assert fleet.executions() == {result["prompt_id"]: 1}


@together
def test_what_a_revoked_job_has_uploaded_is_removed(fleet: Fleet) -> None:
    server = fleet.server()
    # Few uploads at a time, and slow enough that some files are stored and others are not.
    fleet.worker(server, WORKER_SLOTS="1")
    with spoilt(server, {"method": "GET", "path": "/view", "delay_seconds": 1.5}):
        job = fleet.send(bars(1, batch_size=20))
        eventually(lambda: len(fleet.stored(job.id)) >= 2)
        job.revoke(terminate=True)
        eventually(lambda: job.state == "REVOKED")
    assert fleet.stored(job.id) == set()
    assert fleet.executions() == {prompt_id(job.id, 1): 1}
    assert eventually(fleet.has_drained)


@together
def test_a_prompt_that_could_not_be_stopped_is_stopped_later(fleet: Fleet) -> None:
    server = fleet.server()
    proxy = fleet.proxy(server.url)
    fleet.worker(server, url=f"http://{proxy.address}")
    job = fleet.send(bars(1, seconds=60, steps=600))
    prompt = executing(server)
    # The worker knows that it runs.
    eventually(lambda: step_of(job) > 0)
    proxy.set(Mode.REFUSE)
    job.revoke(terminate=True)
    eventually(lambda: job.state == "REVOKED")
    proxy.set(Mode.PASS)
    assert eventually(lambda: was_interrupted(server, prompt), 15)
    assert fleet.executions() == {prompt: 1}


@together
def test_a_waiting_job_that_is_revoked_never_starts(fleet: Fleet) -> None:
    server = fleet.server()
    worker = fleet.worker(server, WORKER_SLOTS="1")
    running = fleet.send(bars(1, seconds=5))
    executing(server)
    waiting = fleet.send(bars(2))
    following = fleet.send(bars(3))
    waiting.revoke()
    results = [job.get(timeout=30) for job in (running, following)]
    assert eventually(lambda: waiting.state == "REVOKED")
    assert fleet.executions() == {result["prompt_id"]: 1 for result in results}
    assert eventually(fleet.has_drained)
    assert worker.returncode is None


@together
def test_a_revoked_job_never_starts_after_broker_and_worker_were_restarted(fleet: Fleet) -> None:
    server = fleet.server()
    worker = fleet.worker(server, WORKER_SLOTS="1", SHUTDOWN_GRACE_SECONDS="15")
    running = fleet.send(bars(1, seconds=5, steps=50))
    executing(server)
    waiting = fleet.send(bars(2))
    waiting.revoke()
    # Recorded, that is; nobody answers a producer.
    eventually(lambda: fleet.redis.hexists(f"comfyfleet:job:{waiting.id}", "cancelled"))
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0
    assert fleet.waiting() == [waiting.id]
    fleet.valkey.kill()
    fleet.valkey.start()
    fleet.reconnect()

    fleet.worker(server)
    assert eventually(lambda: fleet.job(waiting.id).state == "REVOKED")
    results = [fleet.job(running.id).get(timeout=30), fleet.send(bars(3)).get(timeout=30)]
    assert fleet.executions() == {result["prompt_id"]: 1 for result in results}
    assert eventually(fleet.has_drained)


@together
def test_a_retrying_job_that_is_revoked_is_not_tried_again(fleet: Fleet) -> None:
    server = fleet.server()
    worker = fleet.worker(server)
    with spoilt(server, {"method": "POST", "path": "/prompt", "status": 503}):
        job = fleet.send(bars(1))
        eventually(lambda: job.state == "RETRY")
        job.revoke()
        eventually(lambda: job.state == "REVOKED")
    tried = worker.log.read_text().count(f"job {job.id}: attempt")
    assert eventually(fleet.has_drained)
    result = fleet.send(bars(2)).get(timeout=30)
    assert worker.log.read_text().count(f"job {job.id}: attempt") == tried
    assert fleet.executions() == {result["prompt_id"]: 1}


@together
def test_a_job_that_has_expired_ends_and_never_executes(fleet: Fleet) -> None:
    server = fleet.server()
    fleet.worker(server, WORKER_SLOTS="1")
    running = fleet.send(bars(1, seconds=5, steps=50))
    executing(server)
    expires = fleet.send(bars(2), options={"expires": 1})
    following = fleet.send(bars(3))
    results = [job.get(timeout=30) for job in (running, following)]
    error = expires.get(timeout=5, propagate=False)
    assert expires.state == "REVOKED"
    assert "expired" in str(error)
    assert fleet.executions() == {result["prompt_id"]: 1 for result in results}
    assert eventually(fleet.has_drained)
