"""Who takes which job: no server idles while another worker holds a job that has not begun."""

import time

import pytest
import requests

from tests.faults.scenes import Fleet, errors, eventually, executing, together
from tests.stack import bars

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


@together
def test_two_jobs_on_two_idle_servers_are_one_each(fleet: Fleet) -> None:
    servers = [fleet.server(), fleet.server()]
    for server in servers:
        fleet.worker(server)
    for number in range(5):
        # The most urgent are waited for in another way than those of other levels.
        options = {"priority": 6 * (number % 2)}
        jobs = [
            fleet.send(bars(2 * number + which, seconds=0.5), options=options) for which in range(2)
        ]
        instances = {job.get(timeout=30)["instance"] for job in jobs}
        assert instances == {server.url for server in servers}


@together
def test_only_one_job_is_taken_ahead(fleet: Fleet) -> None:
    server = fleet.server()
    fleet.worker(server)
    jobs = [fleet.send(bars(number, seconds=1)) for number in range(6)]
    executing(server)
    eventually(lambda: len(requests.get(f"{server.url}/queue", timeout=5).json()["queue_pending"]))
    assert len(fleet.waiting()) == len(jobs) - 2
    for job in jobs:
        job.get(timeout=30)


@together
def test_a_job_behind_a_long_one_is_given_to_a_server_that_idles(fleet: Fleet) -> None:
    servers = [fleet.server(), fleet.server()]
    for server in servers:
        fleet.worker(server)
    long = fleet.send(bars(0, seconds=10, steps=100))
    eventually(lambda: sum(map(len, (server.executions() for server in servers))))
    began = time.monotonic()
    short = [fleet.send(bars(number, seconds=0.5)) for number in range(1, 7)]
    results = [job.get(timeout=30) for job in short]
    # One after the other on one server, and what it takes to give the last one away.
    assert time.monotonic() - began < 6 * 0.5 + 2.0
    assert not long.ready()
    # Who has only waited on the other server has not tried there.
    assert [errors(result) for result in results] == [[None]] * 6
    assert len({result["instance"] for result in results}) == 1
    prompts = {result["prompt_id"] for result in [*results, long.get(timeout=30)]}
    assert fleet.executions() == dict.fromkeys(prompts, 1)


@together
def test_a_job_behind_somebody_elses_prompt_goes_where_none_is(fleet: Fleet) -> None:
    busy, idle = fleet.server(), fleet.server()
    fleet.worker(busy)
    foreign = {"prompt": bars(99, seconds=30, steps=300)}
    requests.post(f"{busy.url}/prompt", json=foreign, timeout=5).raise_for_status()
    executing(busy)
    job = fleet.send(bars(1))
    eventually(lambda: requests.get(f"{busy.url}/queue", timeout=5).json()["queue_pending"])
    fleet.worker(idle)
    result = job.get(timeout=15)
    assert (result["instance"], errors(result)) == (idle.url, [None])
    assert fleet.executions()[result["prompt_id"]] == 1
    assert len(busy.executions()) == 1
    requests.post(f"{busy.url}/interrupt", json={}, timeout=5).raise_for_status()
