"""Several workers learn of one job: one of them has it, and all messages about it end."""

import re
from dataclasses import dataclass

import pytest

from sandbox.processes import ChildProcess
from sandbox.proxy import Mode
from sandbox.stack import StandIn
from tests.faults.scenes import (
    Fleet,
    errors,
    eventually,
    executing,
    history,
    is_idle,
    sampled,
    together,
    was_interrupted,
)
from tests.stack import bars

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]


def is_committed_once(fleet: Fleet, job_id: str, outputs: int = 1) -> bool:
    """Whether a job's folder has one manifest, and beside it what that names and nothing else."""
    manifest = fleet.client.manifest(
        {"manifest": {"key": f"{job_id}/manifest.json"}},
    )
    named = {output["key"].removeprefix(f"{job_id}/") for output in manifest["outputs"]}
    return len(named) == outputs and fleet.stored(job_id) == {"manifest.json", *named}


@together
def test_one_id_three_times_is_one_job(fleet: Fleet) -> None:
    workers = [fleet.worker(fleet.server()) for _ in range(2)]
    job = fleet.send(bars(1, seconds=6, steps=60))
    for _ in range(2):
        fleet.send(bars(1, seconds=6, steps=60), job.id)
    came = re.compile(f"job {job.id}: (received after|came again while)")
    eventually(lambda: sum(len(came.findall(one.log.read_text())) for one in workers) == 3)

    result = job.get(timeout=30)
    assert eventually(fleet.has_drained)
    assert fleet.job(job.id).get(timeout=5) == result
    assert errors(result) == [None]
    assert fleet.executions() == {result["prompt_id"]: 1}
    assert is_committed_once(fleet, job.id)


@together
def test_duplicates_do_not_end_a_job_whose_owner_dies(fleet: Fleet) -> None:
    slow, fast = fleet.server(step_seconds=0.5), fleet.server()
    owner = fleet.worker(slow, WORKER_SLOTS="1")
    job = fleet.send(sampled(steps=120))
    first = executing(slow)
    fleet.send(sampled(steps=120), job.id)
    other = fleet.worker(fast, LOG_LEVEL="DEBUG")
    eventually(lambda: f"job {job.id}: came again while" in other.log.read_text())
    owner.kill()

    result = job.get(timeout=60)
    assert errors(result) == ["WorkerDiedError", None]
    assert eventually(fleet.has_drained)
    assert eventually(lambda: was_interrupted(slow, first))
    assert slow.executions() == {first: 1}
    assert fast.executions() == {result["prompt_id"]: 1}
    assert is_committed_once(fleet, job.id)


@dataclass(frozen=True)
class Frozen:
    """A worker that hung with a job while another one took that over, and its server."""

    worker: ChildProcess
    server: StandIn
    job_id: str
    prompt: str


def frozen_until_another_has_its_job(fleet: Fleet, other: StandIn) -> Frozen:
    """Freeze a worker with a job until the worker of another server has begun that."""
    slow = fleet.server(step_seconds=0.5)
    worker = fleet.worker(slow)
    job = fleet.send(sampled(steps=120))
    prompt = executing(slow)
    fleet.worker(other)
    worker.pause()
    executing(other)
    return Frozen(worker, slow, job.id, prompt)


def goes_on_as_if_nothing_was(fleet: Fleet, frozen: Frozen, other: StandIn) -> None:
    """The job has ended once, on the other server, and with it all messages."""
    result = fleet.job(frozen.job_id).get(timeout=60)
    assert eventually(fleet.has_drained)
    assert fleet.job(frozen.job_id).get(timeout=5) == result
    assert errors(result) == ["WorkerDiedError", None]
    assert result["instance"] == other.url
    assert is_committed_once(fleet, frozen.job_id)
    assert eventually(lambda: was_interrupted(frozen.server, frozen.prompt))
    assert is_idle(frozen.server)
    assert frozen.server.executions() == {frozen.prompt: 1}
    assert other.executions() == {result["prompt_id"]: 1}
    assert frozen.worker.returncode is None


@together
def test_a_worker_that_was_frozen_does_not_disturb_the_new_owner(fleet: Fleet) -> None:
    server = fleet.server(step_seconds=0.05)
    frozen = frozen_until_another_has_its_job(fleet, server)
    assert not fleet.job(frozen.job_id).ready()
    frozen.worker.resume()
    goes_on_as_if_nothing_was(fleet, frozen, server)


@together
def test_a_worker_that_was_frozen_beyond_the_jobs_end_leaves_it_as_it_is(fleet: Fleet) -> None:
    server = fleet.server()
    frozen = frozen_until_another_has_its_job(fleet, server)
    eventually(fleet.job(frozen.job_id).successful)
    manifest = fleet.client.content(f"{frozen.job_id}/manifest.json")
    before = frozen.worker.log.read_text()
    frozen.worker.resume()
    # It has noticed.
    noticed = re.compile("attempt 1 failed, again in|handed on")
    eventually(lambda: noticed.search(frozen.worker.log.read_text().removeprefix(before)))
    goes_on_as_if_nothing_was(fleet, frozen, server)
    assert fleet.client.content(f"{frozen.job_id}/manifest.json") == manifest


@together
def test_who_is_cut_off_from_redis_commits_nothing_that_may_be_somebody_elses(
    fleet: Fleet,
) -> None:
    server = fleet.server()
    broker = fleet.proxy(fleet.valkey.url)
    blind = {"CELERY_BROKER_URL": f"redis://{broker.address}/0"}
    cut_off = fleet.worker(server, **blind, CELERY_RESULT_BACKEND=blind["CELERY_BROKER_URL"])
    # Longer than its lease is valid, and ended when another worker is given the job.
    job = fleet.send(bars(1, seconds=14.5, steps=100))
    prompt = executing(server)
    broker.set(Mode.BLACKHOLE)
    other = fleet.worker(fleet.server())
    assert eventually(lambda: history(server, prompt))

    result = job.get(timeout=60)
    assert f"on {server.url} collects prompt {prompt}" in other.log.read_text()
    assert result["instance"] == server.url
    assert str(server.port) not in result["worker"]
    assert fleet.executions() == {prompt: 1}
    broker.set(Mode.PASS)
    assert eventually(fleet.has_drained)
    assert fleet.client.manifest(result)["worker"] == result["worker"]
    assert is_committed_once(fleet, job.id)
    assert cut_off.returncode is None
