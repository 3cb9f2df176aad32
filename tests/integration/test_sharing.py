"""Who takes which job: no server idles while another worker holds a job that has not begun."""

import time
from functools import partial

import pytest
import requests

from tests.faults.scenes import Fleet, errors, eventually, executing, is_idle, together
from tests.stack import Workflow, bars

pytestmark = pytest.mark.integration


def endless(seed: int) -> Workflow:
    """A workflow that executes until somebody stops it."""
    return bars(seed, seconds=300, steps=3000)


@together
def test_two_jobs_on_two_idle_servers_are_one_each(fleet: Fleet) -> None:
    servers = [fleet.server(), fleet.server()]
    for server in servers:
        fleet.worker(server)
    for number in range(5):
        # The most urgent are waited for in another way than those of other levels.
        options = {"priority": 6 * (number % 2)}
        jobs = [fleet.send(endless(2 * number + which), options=options) for which in range(2)]
        # Neither ends by itself: there is an idle server however late the second comes.
        for server in servers:
            executing(server, number + 1)
        for job in jobs:
            job.revoke(terminate=True)
        for one in (
            *(job.ready for job in jobs),
            *(partial(is_idle, server) for server in servers),
        ):
            eventually(one)
        assert [len(server.executions()) for server in servers] == [number + 1] * 2


@together
def test_only_one_job_is_taken_ahead(fleet: Fleet) -> None:
    server = fleet.server()
    fleet.worker(server)
    long = fleet.send(endless(0))
    executing(server)
    jobs = [fleet.send(bars(number)) for number in range(1, 6)]
    eventually(lambda: len(requests.get(f"{server.url}/queue", timeout=5).json()["queue_pending"]))
    assert len(fleet.waiting()) == len(jobs) - 1
    long.revoke(terminate=True)
    for job in jobs:
        job.get(timeout=30)


@together
def test_a_job_behind_a_long_one_is_given_to_a_server_that_idles(fleet: Fleet) -> None:
    servers = [fleet.server(), fleet.server()]
    for server in servers:
        fleet.worker(server)
    long = fleet.send(endless(0))
    eventually(fleet.executions)
    (prompt,) = fleet.executions()
    began = time.monotonic()
    short = [fleet.send(bars(number, seconds=0.5)) for number in range(1, 7)]
    results = [job.get(timeout=30) for job in short]
    # One after the other on one server, and what it takes to give the last one away.
    assert time.monotonic() - began < 6 * 0.5 + 10.0
    assert not long.ready()
    long.revoke(terminate=True)
    # Who has only waited on the other server has not tried there.
    assert [errors(result) for result in results] == [[None]] * 6
    assert len({result["instance"] for result in results}) == 1
    prompts = {prompt, *(result["prompt_id"] for result in results)}
    assert fleet.executions() == dict.fromkeys(prompts, 1)


@together
def test_a_job_behind_somebody_elses_prompt_goes_where_none_is(fleet: Fleet) -> None:
    busy, idle = fleet.server(), fleet.server()
    fleet.worker(busy)
    foreign = {"prompt": endless(99)}
    requests.post(f"{busy.url}/prompt", json=foreign, timeout=5).raise_for_status()
    executing(busy)
    job = fleet.send(bars(1))
    eventually(lambda: requests.get(f"{busy.url}/queue", timeout=5).json()["queue_pending"])
    fleet.worker(idle)
    result = job.get(timeout=30)
    assert (result["instance"], errors(result)) == (idle.url, [None])
    assert fleet.executions()[result["prompt_id"]] == 1
    assert len(busy.executions()) == 1
    requests.post(f"{busy.url}/interrupt", json={}, timeout=5).raise_for_status()
