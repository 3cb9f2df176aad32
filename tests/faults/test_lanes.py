"""Jobs that wait in lanes: none is lost, whoever ends, and a server with nothing to do helps."""

import re
from collections import Counter
from collections.abc import Iterator
from itertools import count

import pytest

from cli.graphs import text_to_image
from sandbox.processes import ChildProcess
from sandbox.stack import Stack, StandIn
from tests.faults.scenes import Fleet, errors, eventually, executing, together
from tests.stack import Workflow, bars
from workers.execution.job import prompt_id

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


class Pair:
    """Two servers with a worker each, of which only the first has the red checkpoint."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.red = fleet.server(models=[f"checkpoints/{RED}"], step_seconds=0.1)
        self.blue = fleet.server(models=[f"checkpoints/{BLUE}"])
        self.workers = {server.url: fleet.worker(server) for server in (self.red, self.blue)}

    def restart(self, server: StandIn) -> ChildProcess:
        """A new worker for a server whose worker has ended."""
        self.workers[server.url] = self.fleet.worker(server)
        return self.workers[server.url]

    def send(self, number: int, steps: int = 10) -> list[str]:
        """Enqueue jobs that only the first server can run."""
        return [self.fleet.send(painted(RED, steps)).id for _ in range(number)]

    def all_ran_once(self, jobs: list[str]) -> bool:
        """Whether all have run at the first server, each prompt once, and nothing is left."""
        results = [self.fleet.job(job).get(timeout=60) for job in jobs]
        begun = self.fleet.executions()
        once = all(begun[result["prompt_id"]] == 1 for result in results)
        drained = bool(eventually(self.fleet.has_drained))
        return once and drained and ran_at(results) == {self.red.url: len(jobs)}


@pytest.fixture(scope="module")
def pair(stack: Stack) -> Iterator[Pair]:
    with Fleet(stack) as fleet:
        yield Pair(fleet)


def test_who_comes_back_gets_what_it_alone_can_run(pair: Pair) -> None:
    jobs = pair.send(5)
    executing(pair.red)
    eventually(pair.fleet.in_lanes)
    pair.workers[pair.red.url].kill()
    pair.restart(pair.red)
    assert pair.all_ran_once(jobs)


def test_a_broker_that_restarts_keeps_the_lanes(pair: Pair) -> None:
    jobs = pair.send(5)
    eventually(pair.fleet.in_lanes)
    pair.fleet.valkey.stop()
    pair.fleet.valkey.start()
    pair.fleet.reconnect()
    assert pair.all_ran_once(jobs)


def test_a_full_broker_makes_nobody_count_as_gone(pair: Pair) -> None:
    fleet = pair.fleet
    pair.red.stop()
    jobs = pair.send(1)
    eventually(lambda: fleet.in_lanes() == jobs)
    fleet.redis.config_set("maxmemory", 1)
    # As if that had been so for so long that what was told is forgotten.
    told = fleet.told_of()
    fleet.redis.delete(*told)
    eventually(lambda: fleet.told_of() == told)
    assert fleet.in_lanes() == jobs
    fleet.redis.config_set("maxmemory", 0)
    pair.red.start()
    assert pair.all_ran_once(jobs)


def test_a_server_that_starts_after_its_worker_gets_what_it_alone_can_run(pair: Pair) -> None:
    pair.workers[pair.red.url].stop()
    pair.red.stop()
    pair.fleet.silence(pair.red)
    pair.restart(pair.red)
    jobs = pair.send(4)
    eventually(lambda: len(pair.fleet.in_lanes()) == 4)
    pair.red.start()
    assert pair.all_ran_once(jobs)


def test_a_frozen_worker_loses_none_of_its_jobs(pair: Pair) -> None:
    before = sum(pair.red.executions().values())
    jobs = pair.send(5)
    executing(pair.red, before + 1)
    worker = pair.workers[pair.red.url]
    worker.pause()
    prompt = pair.red.execution_log()[-1].prompt_id
    # What it held comes to the other one, which cannot run it, and collects what has been rendered.
    held = next(job for job in jobs if prompt_id(job, 1) == prompt)
    pair.fleet.job(held).get(timeout=60)
    assert len(pair.fleet.in_lanes()) >= 1
    worker.resume()
    assert pair.all_ran_once(jobs)


def test_what_only_a_dead_one_could_run_fails_and_is_not_forgotten(pair: Pair) -> None:
    before = sum(pair.red.executions().values())
    # Too long for one of them to end in time.
    jobs = pair.send(4, steps=200)
    executing(pair.red, before + 1)
    pair.workers[pair.red.url].kill()
    pair.red.kill()
    pair.fleet.forget(pair.red)
    for job in jobs:
        error = pair.fleet.job(job).get(timeout=60, propagate=False)
        assert "the server does not have 'red.safetensors'" in str(error)
    assert pair.blue.executions() == {}
    assert eventually(pair.fleet.has_drained)
    pair.red.start()
    pair.restart(pair.red)


def test_a_fleet_that_comes_back_one_by_one_loses_nothing(pair: Pair) -> None:
    jobs = pair.send(5)
    eventually(pair.fleet.in_lanes)
    # One that has been there for long would have no patience with what it does not see any more.
    for worker in pair.workers.values():
        worker.kill()
    for server in (pair.red, pair.blue):
        pair.fleet.silence(server)
    blue = pair.restart(pair.blue)
    later = pair.send(1)
    eventually(lambda: "waits for servers that may join" in blue.log.read_text(), 60)
    pair.restart(pair.red)
    assert pair.all_ran_once([*jobs, *later])


@together
def test_a_dead_ones_lane_is_served_by_those_who_load_its_models(fleet: Fleet) -> None:
    red = fleet.server(models=BOTH, step_seconds=0.1, model_seconds=1.0)
    blue = fleet.server(models=BOTH, step_seconds=0.1, model_seconds=1.0)
    workers = {red.url: fleet.worker(red), blue.url: fleet.worker(blue)}
    first = {RED: fleet.send(painted(RED, steps=10))}
    # Who has that one does not get both.
    eventually(fleet.executions)
    first[BLUE] = fleet.send(painted(BLUE, steps=10))
    at = first[RED].get(timeout=30)["instance"]
    assert first[BLUE].get(timeout=30)["instance"] != at
    jobs = [fleet.send(painted(RED, steps=8)) for _ in range(6)]
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
    assert len(re.findall(f"job {jobs[1].id}: (?:handed on|waits for)", log)) <= 3
