"""Jobs that wait in lanes: none is lost, whoever ends, and a server with nothing to do helps."""

import signal
from collections import Counter
from itertools import count

import pytest

from cli.graphs import text_to_image
from tests.faults.scenes import Fleet, errors, eventually, executing, together
from tests.stack import Workflow, bars

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]

RED, BLUE = "red.safetensors", "blue.safetensors"
BOTH = (f"checkpoints/{RED}", f"checkpoints/{BLUE}")
_SEEDS = count(1)


def painted(checkpoint: str, steps: int = 1) -> Workflow:
    """A graph that no cache answers."""
    workflow = text_to_image(checkpoint, "a cat", seed=next(_SEEDS))
    workflow["3"]["inputs"]["steps"] = steps
    workflow["5"]["inputs"] |= {"width": 64, "height": 64}
    return workflow


def ran_at(results: list[dict]) -> Counter[str]:
    """How many of the jobs ran on each server, by URL."""
    return Counter(result["instance"] for result in results)


@together
def test_who_comes_back_gets_what_it_alone_can_run(fleet: Fleet) -> None:
    only = fleet.server(models=[f"checkpoints/{RED}"], step_seconds=0.2)
    other = fleet.server(models=[f"checkpoints/{BLUE}"])
    worker = fleet.worker(only)
    fleet.worker(other)
    jobs = [fleet.send(painted(RED, steps=10)) for _ in range(4)]
    executing(only)
    eventually(lambda: len(fleet.in_lanes()) + len(fleet.waiting()) >= 1)
    worker.kill()
    fleet.worker(only)
    results = [job.get(timeout=60) for job in jobs]
    assert ran_at(results) == {only.url: 4}
    assert set(fleet.executions().values()) == {1}
    assert eventually(fleet.has_drained)


@together
def test_what_only_a_dead_one_could_run_fails_and_is_not_forgotten(fleet: Fleet) -> None:
    only = fleet.server(models=[f"checkpoints/{RED}"], step_seconds=0.2)
    other = fleet.server(models=[f"checkpoints/{BLUE}"])
    worker = fleet.worker(only)
    fleet.worker(other)
    jobs = [fleet.send(painted(RED, steps=10)) for _ in range(4)]
    executing(only)
    worker.kill()
    only.kill()
    fleet.silence(only)
    for job in jobs:
        # For a minute after its start a worker waits for servers that were there before.
        error = job.get(timeout=90, propagate=False)
        assert "the server does not have 'red.safetensors'" in str(error)
    assert other.executions() == {}
    assert eventually(fleet.has_drained)


@together
def test_a_dead_ones_lane_is_served_by_those_who_load_its_models(fleet: Fleet) -> None:
    red = fleet.server(models=BOTH, step_seconds=0.1, model_seconds=1.0)
    blue = fleet.server(models=BOTH, step_seconds=0.1, model_seconds=1.0)
    workers = {red.url: fleet.worker(red), blue.url: fleet.worker(blue)}
    first = {one: fleet.send(painted(one, steps=10)) for one in (RED, BLUE)}
    at = first[RED].get(timeout=30)["instance"]
    assert first[BLUE].get(timeout=30)["instance"] != at
    jobs = [fleet.send(painted(RED, steps=5)) for _ in range(6)]
    server = red if at == red.url else blue
    executing(server, 2)
    workers[at].kill()
    server.kill()
    results = [job.get(timeout=60) for job in jobs]
    other = ran_at(results).keys() - {at}
    assert len(other) == 1
    assert eventually(fleet.has_drained)
    # Of those that had not ended only the one that was executing, if any, was begun twice.
    assert sum(fleet.executions().values()) <= 2 + len(jobs) + 1


@together
def test_a_server_with_nothing_to_do_gets_what_it_can_run_and_nothing_else(fleet: Fleet) -> None:
    able = fleet.server(step_seconds=0.2)
    unable = fleet.server(without_nodes=["BarsRender"])
    workers = [fleet.worker(able), fleet.worker(unable)]
    # Waits behind the first one in the hands of a worker whom the idle one calls.
    jobs = [fleet.send(bars(next(_SEEDS), seconds=4, steps=20)) for _ in range(2)]
    results = [job.get(timeout=60) for job in jobs]
    assert ran_at(results) == {able.url: 2}
    assert [errors(result) for result in results] == [[None], [None]]
    log = "".join(worker.log.read_text() for worker in workers)
    # Not back and forth while it waits.
    assert log.count(f"job {jobs[1].id}: received") <= 4


@together
def test_a_broker_that_restarts_keeps_the_lanes(fleet: Fleet) -> None:
    only = fleet.server(models=[f"checkpoints/{RED}"], step_seconds=0.2)
    other = fleet.server(models=[f"checkpoints/{BLUE}"])
    fleet.worker(only)
    fleet.worker(other)
    jobs = [fleet.send(painted(RED, steps=10)) for _ in range(5)]
    eventually(lambda: len(fleet.in_lanes()) >= 1)
    fleet.valkey.stop()
    fleet.valkey.start()
    fleet.reconnect()
    results = [fleet.job(job.id).get(timeout=60) for job in jobs]
    assert ran_at(results) == {only.url: 5}
    assert set(fleet.executions().values()) == {1}


@together
def test_a_fleet_that_comes_back_one_by_one_loses_nothing(fleet: Fleet) -> None:
    only = fleet.server(models=[f"checkpoints/{RED}"], step_seconds=0.2)
    other = fleet.server(models=[f"checkpoints/{BLUE}"])
    workers = [fleet.worker(only), fleet.worker(other)]
    jobs = [fleet.send(painted(RED, steps=10)) for _ in range(5)]
    eventually(lambda: len(fleet.in_lanes()) >= 1)
    for worker in workers:
        worker.kill()
    for server in (only, other):
        fleet.silence(server)
    other_worker = fleet.worker(other)
    eventually(lambda: "waits for servers that may join" in other_worker.log.read_text(), 30)
    fleet.worker(only)
    results = [job.get(timeout=60) for job in jobs]
    assert ran_at(results) == {only.url: 5}
    assert set(fleet.executions().values()) == {1}


@together
def test_a_full_broker_makes_nobody_count_as_gone(fleet: Fleet) -> None:
    only = fleet.server(models=[f"checkpoints/{RED}"])
    other = fleet.server(models=[f"checkpoints/{BLUE}"])
    fleet.worker(only)
    fleet.worker(other)
    only.stop()
    job = fleet.send(painted(RED))
    eventually(lambda: fleet.in_lanes() == [job.id])
    fleet.redis.config_set("maxmemory", 1)
    # As if that had been so for so long that what was told is forgotten.
    told = fleet.told_of()
    fleet.redis.delete(*told)
    eventually(lambda: fleet.told_of() == told)
    assert fleet.in_lanes() == [job.id]
    fleet.redis.config_set("maxmemory", 0)
    only.start()
    assert ran_at([job.get(timeout=60)]) == {only.url: 1}


@together
def test_a_server_that_starts_after_its_worker_gets_what_it_alone_can_run(fleet: Fleet) -> None:
    late = fleet.server(models=[f"checkpoints/{RED}"])
    other = fleet.server(models=[f"checkpoints/{BLUE}"])
    fleet.worker(other)
    late.stop()
    fleet.worker(late)
    jobs = [fleet.send(painted(RED)) for _ in range(4)]
    eventually(lambda: len(fleet.in_lanes()) == 4)
    late.start()
    assert ran_at([job.get(timeout=60) for job in jobs]) == {late.url: 4}
    assert eventually(fleet.has_drained)


@together
def test_a_frozen_worker_loses_none_of_its_jobs(fleet: Fleet) -> None:
    only = fleet.server(models=[f"checkpoints/{RED}"], step_seconds=0.1)
    other = fleet.server(models=[f"checkpoints/{BLUE}"])
    worker = fleet.worker(only)
    fleet.worker(other)
    jobs = [fleet.send(painted(RED, steps=10)) for _ in range(4)]
    executing(only)
    worker.send_signal(signal.SIGSTOP)
    # Its messages come to the other one meanwhile.
    eventually(lambda: len(fleet.in_lanes()) + len(fleet.waiting()) >= 3, 40)
    worker.send_signal(signal.SIGCONT)
    assert ran_at([job.get(timeout=60) for job in jobs]) == {only.url: 4}
    assert eventually(fleet.has_drained)
