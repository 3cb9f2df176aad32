"""A ComfyUI that goes away, lies or hangs while it has a job."""

import pytest
import requests
import websocket

from sandbox.processes import ChildProcess
from sandbox.proxy import Mode, TcpProxy
from sandbox.stack import StandIn
from tests.faults.scenes import (
    Fleet,
    errors,
    eventually,
    executing,
    is_idle,
    pending,
    sampled,
    spoilt,
    step_of,
    together,
    was_interrupted,
)
from tests.stack import Workflow, bars
from workers.execution.job import prompt_id

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]


def behind_a_proxy(fleet: Fleet) -> tuple[StandIn, TcpProxy, ChildProcess]:
    """A server, what stands before it, and its worker."""
    server = fleet.server()
    proxy = fleet.proxy(server.url)
    worker = fleet.worker(server, url=f"http://{proxy.address}", COMFYUI_READ_TIMEOUT_SECONDS="3")
    return server, proxy, worker


def survives(fleet: Fleet, mode: Mode) -> None:
    """A job goes on after its server could not be used for a while, and is not run again."""
    server, proxy, worker = behind_a_proxy(fleet)
    job = fleet.send(bars(1, seconds=6, steps=60))
    prompt = executing(server)
    # The worker knows that it runs.
    eventually(lambda: step_of(job) > 0)
    proxy.set(mode)
    eventually(lambda: "no jobs are taken until" in worker.log.read_text())
    proxy.set(Mode.PASS)

    result = job.get(timeout=60)
    assert errors(result) == [None]
    assert fleet.executions() == {prompt: 1}
    assert fleet.send(bars(2)).get(timeout=30)["outputs"]


def silence(server: StandIn) -> None:
    """Leave the worker's websocket open and deaf: another one of its client id came and went."""
    (item,) = requests.get(f"{server.url}/queue", timeout=5).json()["queue_running"]
    url = f"{server.url.replace('http', 'ws')}/ws?clientId={item[3]['client_id']}"
    websocket.create_connection(url, timeout=5).close()


@together
def test_a_server_that_refuses_for_a_while(fleet: Fleet) -> None:
    survives(fleet, Mode.REFUSE)


@together
def test_a_server_that_answers_garbage_for_a_while(fleet: Fleet) -> None:
    survives(fleet, Mode.CORRUPT)


@together
def test_a_server_that_ends_its_answers_early_for_a_while(fleet: Fleet) -> None:
    survives(fleet, Mode.HALF_CLOSE)


@together
def test_a_server_that_answers_nothing_for_a_while(fleet: Fleet) -> None:
    survives(fleet, Mode.BLACKHOLE)


@together
def test_connections_that_are_reset_cost_nothing(fleet: Fleet) -> None:
    server, proxy, _ = behind_a_proxy(fleet)
    job = fleet.send(bars(1, seconds=12, steps=120))
    prompt = executing(server)
    # The worker knows that it runs.
    eventually(lambda: step_of(job) > 0)
    for _ in range(2):
        seen = step_of(job)
        proxy.cut()
        # The websocket is back.
        eventually(lambda seen=seen: step_of(job) > seen)
    assert errors(job.get(timeout=30)) == [None]
    assert fleet.executions() == {prompt: 1}


@together
def test_server_errors_while_a_prompt_runs_cost_nothing(fleet: Fleet) -> None:
    server = fleet.server()
    worker = fleet.worker(server)
    job = fleet.send(bars(1, seconds=5, steps=50))
    prompt = executing(server)
    rules = [{"method": "GET", "path": path, "status": 502} for path in ("/queue", "/history/*")]
    with spoilt(server, *rules):
        eventually(lambda: "no jobs are taken until" in worker.log.read_text())
        eventually(lambda: server.execution_log()[0].ended)
    assert errors(job.get(timeout=30)) == [None]
    assert fleet.executions() == {prompt: 1}


@together
def test_a_server_that_answers_and_takes_no_prompts_uses_up_no_queue(fleet: Fleet) -> None:
    server = fleet.server()
    worker = fleet.worker(server)
    with spoilt(server, {"method": "POST", "path": "/prompt", "status": 502}):
        jobs = [fleet.send(bars(number)) for number in range(1, 9)]
        # It is tried now and then, each time by whichever job is next.
        told = "no jobs are taken until"
        eventually(lambda: worker.log.read_text().count(told) >= 3)
        assert not any(job.ready() for job in jobs)
    results = [job.get(timeout=60) for job in jobs]
    assert fleet.executions() == {result["prompt_id"]: 1 for result in results}


@together
def test_a_websocket_that_is_cut_comes_back_with_the_progress(fleet: Fleet) -> None:
    server = fleet.server()
    fleet.worker(server)
    job = fleet.send(bars(1, seconds=9, steps=90))
    prompt = executing(server)
    eventually(lambda: step_of(job) > 0)
    requests.post(f"{server.url}/sandbox/faults/cut", timeout=5).raise_for_status()
    seen = step_of(job)
    eventually(lambda: step_of(job) > seen + 5)
    assert errors(job.get(timeout=30)) == [None]
    assert fleet.executions() == {prompt: 1}


@together
def test_a_server_restarted_in_mid_prompt_runs_it_again(fleet: Fleet) -> None:
    server = fleet.server()
    fleet.worker(server)
    job = fleet.send(bars(1, seconds=5, steps=50))
    first = executing(server)
    server.kill()
    server.start()
    result = job.get(timeout=60)
    assert errors(result) == ["PromptLostError", None]
    assert [attempt["number"] for attempt in result["attempts"]] == [1, 2]
    assert result["prompt_id"] == prompt_id(job.id, 2)
    assert fleet.executions() == {first: 1, result["prompt_id"]: 1}


@together
def test_the_job_of_a_server_that_stays_away_goes_elsewhere(fleet: Fleet) -> None:
    slow, fast = fleet.server(step_seconds=0.5), fleet.server()
    fleet.worker(slow)
    job = fleet.send(sampled(steps=120))
    first = executing(slow)
    fleet.worker(fast)
    slow.kill()
    result = job.get(timeout=60)
    assert errors(result) == ["ComfyUIUnavailableError", None]
    assert [attempt["instance"] for attempt in result["attempts"]] == [slow.url, fast.url]
    assert slow.executions() == {first: 1}
    assert fast.executions() == {result["prompt_id"]: 1}


@together
def test_a_job_that_only_waits_does_not_fail_with_its_server(fleet: Fleet) -> None:
    server = fleet.server()
    # So that a single attempt which counted would be too many.
    worker = fleet.worker(server, JOB_MAX_ATTEMPTS="1")
    runs = fleet.send(bars(1, seconds=60))
    guilty = executing(server)
    waits = fleet.send(bars(2))
    eventually(lambda: prompt_id(waits.id, 1) in pending(server))
    server.kill()
    # As long as a slow start, or none, takes.
    eventually(lambda: f"job {waits.id}: attempt 1 failed" in worker.log.read_text())
    server.start()

    result = waits.get(timeout=60)
    assert errors(result) == ["ComfyUIUnavailableError", None]
    assert type(runs.get(timeout=30, propagate=False)).__name__ == "ComfyUIUnavailableError"
    assert fleet.executions() == {guilty: 1, result["prompt_id"]: 1}


def faulty(fault: str) -> Workflow:
    """A workflow that does something to its server."""
    workflow = bars(1)
    workflow["3"] = {"class_type": "SandboxFault", "inputs": {"images": ["1", 0], "fault": fault}}
    workflow["2"]["inputs"]["images"] = ["3", 0]
    return workflow


@together
def test_a_prompt_that_stalls_is_interrupted_and_tried_elsewhere(fleet: Fleet) -> None:
    servers = [fleet.server(), fleet.server()]
    for server in servers:
        fleet.worker(server, STALL_SECONDS="3", JOB_MAX_ATTEMPTS="2")
    job = fleet.send(faulty("hang_interruptible"))
    error = job.get(timeout=60, propagate=False)
    assert type(error).__name__ == "PromptStalledError"
    assert "showed no sign of life for" in str(error)
    assert errors(job.backend.get_task_meta(job.id)) == ["PromptStalledError"] * 2
    for server in servers:
        # One attempt each.
        (prompt,) = server.executions()
        assert was_interrupted(server, prompt)
        assert is_idle(server)
    assert set(fleet.executions().values()) == {1}
    # Neither server is to blame.
    assert errors(fleet.send(bars(2)).get(timeout=30)) == [None]


@together
def test_a_hung_server_gets_no_jobs_until_it_is_restarted(fleet: Fleet) -> None:
    hung = fleet.server()
    worker = fleet.worker(hung, STALL_SECONDS="3")
    hangs = fleet.send(faulty("hang"))
    prompt = executing(hung)
    # It must not hang the other one, too.
    eventually(lambda: f"prompt {prompt} hangs" in worker.log.read_text())
    hangs.revoke()
    healthy = fleet.server()
    fleet.worker(healthy)
    eventually(lambda: hangs.state == "REVOKED")

    results = [fleet.send(bars(number)).get(timeout=30) for number in range(2, 8)]
    assert {result["instance"] for result in results} == {healthy.url}
    assert {len(result["attempts"]) for result in results} == {1}
    assert hung.executions() == {prompt: 1}
    assert worker.returncode is None

    told = worker.log.read_text().count("; jobs are taken")
    hung.kill()
    hung.start()
    eventually(lambda: worker.log.read_text().count("; jobs are taken") > told)
    jobs = [fleet.send(bars(number, seconds=0.5)) for number in range(12, 18)]
    results = [job.get(timeout=30) for job in jobs]
    assert {result["instance"] for result in results} == {hung.url, healthy.url}


@together
def test_the_job_of_a_hung_server_goes_elsewhere(fleet: Fleet) -> None:
    # Between two steps, which take an hour there, it hears nothing.
    hung, healthy = fleet.server(step_seconds=3600), fleet.server()
    worker = fleet.worker(hung, STALL_SECONDS="1")
    job = fleet.send(sampled())
    prompt = executing(hung)
    fleet.worker(healthy)
    result = job.get(timeout=60)
    assert errors(result) == ["ComfyUIHungError", None]
    assert [attempt["instance"] for attempt in result["attempts"]] == [hung.url, healthy.url]
    assert hung.executions() == {prompt: 1}
    assert healthy.executions() == {result["prompt_id"]: 1}
    assert worker.returncode is None


@together
def test_what_extensions_tell_all_the_time_hides_no_stall(fleet: Fleet) -> None:
    server = fleet.server()
    fleet.worker(server, STALL_SECONDS="1", JOB_MAX_ATTEMPTS="1")
    job = fleet.send(faulty("hang_interruptible"))
    executing(server)

    def ends() -> bool:
        monitor = {"type": "crystools.monitor", "data": {"cpu_utilization": 3.0}}
        requests.post(f"{server.url}/sandbox/faults/broadcast", json=monitor, timeout=5)
        return job.ready()

    eventually(ends)
    assert type(job.get(propagate=False)).__name__ == "PromptStalledError"


@together
def test_a_websocket_that_is_open_and_deaf_costs_no_healthy_prompt(fleet: Fleet) -> None:
    server = fleet.server()
    fleet.worker(server, STALL_SECONDS="6", JOB_MAX_ATTEMPTS="1")
    job = fleet.send(bars(1, seconds=12, steps=120))
    prompt = executing(server)
    eventually(lambda: step_of(job) > 0)
    silence(server)
    seen = step_of(job)
    eventually(lambda: step_of(job) > seen + 5)
    assert errors(job.get(timeout=30)) == [None]
    assert fleet.executions() == {prompt: 1}


@together
def test_a_server_that_tells_nobody_anything_is_not_hung(fleet: Fleet) -> None:
    server = fleet.server()
    fleet.worker(server, STALL_SECONDS="3", JOB_MAX_ATTEMPTS="1")
    faults = f"{server.url}/sandbox/faults"
    requests.put(faults, json={"websocket": "mute"}, timeout=5).raise_for_status()
    job = fleet.send(bars(1, seconds=6, steps=60))
    assert errors(job.get(timeout=30)) == [None]
    assert set(fleet.executions().values()) == {1}
