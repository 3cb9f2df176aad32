"""Attempts that fail: which of them are followed by another one, where, and what is kept of all."""

import io
import json
from typing import Any

import pytest
from celery.result import AsyncResult
from PIL import Image

from sandbox.stack import StandIn
from tests.faults.scenes import Fleet, errors, executing, spoilt, together
from tests.stack import bars
from workers.execution.job import prompt_id

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]

OUT_OF_MEMORY = {
    "outputs": {},
    "status": {
        "status_str": "error",
        "completed": False,
        "messages": [
            ["execution_error", {"node_id": "1", "exception_type": "torch.OutOfMemoryError"}]
        ],
    },
}


def out_of_memory(job_id: str, attempt: int) -> dict[str, Any]:
    """A rule of the faults API: the server says so of a prompt that has, in truth, succeeded."""
    prompt = prompt_id(job_id, attempt)
    body = json.dumps({prompt: OUT_OF_MEMORY})
    return {
        "method": "GET",
        "path": f"/history/{prompt}",
        "status": 200,
        "body": body,
        "content_type": "application/json",
    }


def pixels(png: bytes) -> bytes:
    """What a picture shows, without the workflow that is embedded in it."""
    with Image.open(io.BytesIO(png)) as picture:
        return picture.tobytes()


def seconds_of(server: StandIn) -> list[float]:
    """How long each execution took."""
    return [(one.ended or 0.0) - one.began for one in server.execution_log()]


def failure(job: AsyncResult) -> tuple[str, dict[str, Any]]:
    """A job's error as a bare producer sees it, and what lies beside it in the backend."""
    error = job.get(timeout=30, propagate=False)
    assert job.state == "FAILURE"
    return f"{type(error).__name__}: {error}", job.backend.get_task_meta(job.id)


@together
def test_out_of_memory_frees_the_memory_and_tries_again_there(fleet: Fleet) -> None:
    server, other = fleet.server(), fleet.server()
    fleet.worker(server)
    with spoilt(server, out_of_memory("full", 1)):
        job = fleet.send(bars(1, seconds=1), "full")
        executing(server)
        fleet.worker(other)
        result = job.get(timeout=30)
    assert errors(result) == ["OutOfMemoryError", None]
    assert {attempt["instance"] for attempt in result["attempts"]} == {server.url}
    assert fleet.executions() == {prompt_id("full", 1): 1, prompt_id("full", 2): 1}
    # What the first one had made was not in the cache any more: it was freed.
    assert min(seconds_of(server)) >= 1


@together
def test_out_of_memory_twice_goes_to_another_instance(fleet: Fleet) -> None:
    servers = [fleet.server(), fleet.server()]
    for server in servers:
        fleet.worker(server)
    rules = [out_of_memory("fuller", attempt) for attempt in (1, 2)]
    with spoilt(servers[0], *rules), spoilt(servers[1], *rules):
        result = fleet.send(bars(1), "fuller").get(timeout=30)
    assert errors(result) == ["OutOfMemoryError", "OutOfMemoryError", None]
    first, second, third = (attempt["instance"] for attempt in result["attempts"])
    assert first == second != third == result["instance"]
    assert fleet.executions() == {prompt_id("fuller", attempt): 1 for attempt in (1, 2, 3)}


@together
def test_out_of_memory_everywhere_fails_and_tells_every_attempt(fleet: Fleet) -> None:
    servers = [fleet.server(), fleet.server()]
    for server in servers:
        fleet.worker(server)
    job = fleet.send(bars(1, mode="oom"))
    message, kept = failure(job)
    assert message.startswith("OutOfMemoryError: node 1 (BarsRender) ran out of memory")
    assert errors(kept) == ["OutOfMemoryError"] * 3
    numbers = [(attempt["number"], attempt["prompt_id"]) for attempt in kept["attempts"]]
    assert numbers == [(n, prompt_id(job.id, n)) for n in (1, 2, 3)]
    for attempt in kept["attempts"]:
        assert attempt["seconds"] > 0
        assert f"{attempt['number']} on {attempt['instance']} OutOfMemoryError after" in message
    assert fleet.executions() == {prompt_id(job.id, n): 1 for n in (1, 2, 3)}
    assert sorted(len(server.executions()) for server in servers) == [1, 2]


@together
def test_a_cached_output_that_is_gone_is_made_again(fleet: Fleet) -> None:
    server = fleet.server()
    fleet.worker(server)
    fleet.send(bars(1, seconds=4)).get(timeout=30)
    (file,) = (server.directory / "output").rglob("*.png")
    file.unlink()

    second = fleet.send(bars(1, seconds=4)).get(timeout=30)
    assert errors(second) == ["OutputMissingError", None]
    assert fleet.client.content(second["outputs"][0]["key"])
    assert list(fleet.executions().values()) == [1, 1, 1]
    # Only the node whose file was gone: the render itself is in the cache.
    assert max(seconds_of(server)[1:]) < 4


@together
def test_a_cached_output_that_another_node_has_replaced_is_made_again(fleet: Fleet) -> None:
    server = fleet.server()
    fleet.worker(server)
    (before,) = fleet.send(bars(1)).get(timeout=30)["outputs"]
    (file,) = (server.directory / "output").rglob("*.png")
    file.unlink()
    # Its name is the next one again, which the other node's file gets.
    other = {{"1": "3", "2": "4"}[node_id]: node for node_id, node in bars(2).items()}
    other["4"]["inputs"]["images"] = ["3", 0]

    result = fleet.send({**bars(1), **other}).get(timeout=30)
    assert errors(result) == ["OutputMissingError", None]
    shown = {output["node_id"]: fleet.client.content(output["key"]) for output in result["outputs"]}
    assert shown.keys() == {"2", "4"}
    assert pixels(shown["2"]) == pixels(fleet.client.content(before["key"])) != pixels(shown["4"])


@together
def test_an_output_that_stays_away_is_made_again_once(fleet: Fleet) -> None:
    server = fleet.server()
    fleet.worker(server)
    with spoilt(server, {"method": "GET", "path": "/view", "status": 404}):
        message, kept = failure(fleet.send(bars(1)))
    assert message.startswith("OutputMissingError: ")
    assert errors(kept) == ["OutputMissingError", "OutputMissingError"]
    assert list(fleet.executions().values()) == [1, 1]


@together
def test_a_node_that_raises_fails_at_once(fleet: Fleet) -> None:
    server = fleet.server()
    fleet.worker(server)
    job = fleet.send(bars(1, mode="error"))
    message, kept = failure(job)
    assert message.startswith("NodeFailedError: node 1 (BarsRender) raised ValueError")
    assert errors(kept) == ["NodeFailedError"]
    assert fleet.executions() == {prompt_id(job.id, 1): 1}


@together
def test_an_invalid_workflow_fails_at_once(fleet: Fleet) -> None:
    fleet.worker(fleet.server())
    workflow = bars(1)
    workflow["1"]["inputs"]["mode"] = "none such"
    message, kept = failure(fleet.send(workflow))
    assert message.startswith("InvalidWorkflowError: ")
    assert errors(kept) == ["InvalidWorkflowError"]
    assert fleet.executions() == {}


@together
def test_a_passing_fault_is_tried_again_elsewhere(fleet: Fleet) -> None:
    servers = [fleet.server(), fleet.server()]
    for server in servers:
        fleet.worker(server)
    rule = {"method": "POST", "path": "/prompt", "status": 503}
    # Where the first attempt is made nobody knows; the second one would succeed there, too.
    with spoilt(servers[0], {**rule, "times": 1}), spoilt(servers[1], {**rule, "times": 1}):
        result = fleet.send(bars(1)).get(timeout=30)
    assert errors(result)[0] == "ComfyUIUnavailableError"
    assert len({attempt["instance"] for attempt in result["attempts"][:2]}) == 2
    assert fleet.executions() == {result["prompt_id"]: 1}
