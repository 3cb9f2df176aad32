"""Whatever a producer sends, its job fails at once with one sentence, and the worker goes on."""

import base64
import json
import resource
import uuid
import zlib
from pathlib import Path
from typing import Any

import pytest
import redis

from sandbox.processes import ChildProcess
from sandbox.stack import Stack
from tests.stack import Client, bars

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("running_worker")]

PAGE_BYTES = resource.getpagesize()
SAVE = {"class_type": "SaveImage", "inputs": {"images": ["9", 0], "filename_prefix": "x"}}


@pytest.mark.parametrize(
    ("workflow", "kind", "sentence"),
    [
        (
            "not json",
            "InvalidRequestError",
            "found 'not json', expected a JSON object",
        ),
        ([1], "InvalidRequestError", "argument 'workflow': found [1], expected a JSON object"),
        ({}, "InvalidWorkflowError", "the workflow is empty"),
        ({"1": {"inputs": {}}}, "InvalidWorkflowError", "node 1: has no class_type"),
        ({"1": SAVE}, "InvalidWorkflowError", "node 1 (SaveImage), input images: links to node 9"),
        (
            {"1": {"class_type": "NoSuchNode", "inputs": {}}},
            "InvalidWorkflowError",
            "node 1 (NoSuchNode): ",
        ),
        (
            {**bars(1, steps=0)},
            "InvalidWorkflowError",
            "node 1 (BarsRender), input steps: found 0, expected a whole number from 1 to 10000",
        ),
        (
            {**bars(1), "3": {"class_type": "SaveImage", "inputs": {"filename_prefix": "x"}}},
            "InvalidWorkflowError",
            "node 3 (SaveImage), input images: is required, and missing",
        ),
        (
            {"1": {"class_type": "SaveImage", "inputs": {"filename_prefix": "x" * 20_000_000}}},
            "InvalidWorkflowError",
            "the workflow has 20.0 MB, at most 10.5 MB are allowed",
        ),
    ],
    ids=[
        *("not-json", "not-an-object", "empty", "no-class", "absent-link", "unknown-node"),
        *("out-of-range", "one-bad-output", "twenty-megabytes"),
    ],
)
def test_a_bad_workflow_fails_at_once(
    client: Client, stack: Stack, workflow: Any, kind: str, sentence: str
) -> None:
    before = stack.comfyui.executions()
    error = client.failure(workflow)
    assert type(error).__name__ == kind
    assert sentence in str(error)
    assert "\n" not in str(error)
    assert "Traceback" not in str(error)
    assert len(str(error)) < 700
    # What is partly valid may have begun before it was taken back; nothing else was accepted.
    begun = stack.comfyui.executions().keys() - before.keys()
    assert len(begun) <= (1 if kind == "InvalidWorkflowError" and len(workflow) == 3 else 0)


def test_unknown_arguments_are_named(client: Client, seed: int) -> None:
    error = client.failure(bars(seed), parms={})
    assert str(error) == "unknown argument 'parms', did you mean 'params'?"


def test_positional_arguments_are_explained(client: Client, seed: int) -> None:
    handle = client.celery.send_task("comfyui.run_workflow", args=[bars(seed)], queue="comfyui")
    error = handle.get(timeout=30, propagate=False)
    assert "arguments are passed by name" in str(error)


def test_a_failed_job_is_not_retried(client: Client, worker: ChildProcess) -> None:
    handle = client.send({})
    handle.get(timeout=30, propagate=False)
    meta = json.loads(client.celery.backend.client.get(f"celery-task-meta-{handle.id}"))
    assert meta["status"] == "FAILURE"
    assert meta["result"]["exc_message"] == ["the workflow is empty: it has no node"]
    log = worker.log.read_text()
    assert f"job {handle.id}: attempt 1 " in log
    assert f"job {handle.id}: attempt 1 failed, again in" not in log


def envelope(content: bytes, headers: dict[str, Any] | None = None, **changed: Any) -> str:
    """A message as it lies in Redis."""
    return json.dumps(
        {
            "body": base64.b64encode(content).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {"task": "comfyui.run_workflow", **(headers or {})},
            "properties": {
                "delivery_tag": str(uuid.uuid4()),
                "delivery_info": {"exchange": "", "routing_key": "comfyui"},
                "body_encoding": "base64",
            },
            **changed,
        }
    )


SOUND = b'[[], {"workflow": {}}, {}]'
HOSTILE = {
    "not json": "{{{",
    "a list": "[1, 2]",
    "a number": "5",
    "an empty object": "{}",
    "binary": b"\xff\xfe\x00",
    "headers are a list": envelope(SOUND, headers=None).replace('"headers": {', '"headers_": {'),
    "no properties": envelope(SOUND, properties=None),
    "no base64": envelope(SOUND, body="%%%"),
    "unknown encoding": envelope(SOUND).replace('"base64"', '"rot13"'),
    "typed by kombu": '{"__type__": [], "__value__": 1}',
    "typed header": envelope(SOUND, {"x": {"__type__": "decimal", "__value__": "zz"}}),
    "tag is a list": envelope(SOUND).replace('"delivery_tag": "', '"delivery_tag": [], "x": "'),
    "id is null": envelope(SOUND, {"id": None}),
    "id is empty": envelope(SOUND, {"id": ""}),
    "id is a number": envelope(SOUND, {"id": 7}),
    "id is half a character": envelope(SOUND, {"id": "\ud800"}),
    "id is half a character, body is none": envelope(b"{{", {"id": "\ud800"}),
    "id is half a character, task is none": envelope(SOUND, {"id": "\ud800", "task": "no"}),
    "unknown task": envelope(SOUND, {"task": "no.such.task"}),
    "no task": envelope(SOUND, {"task": None}),
    "pickle": envelope(b"\x80", **{"content-type": "application/x-python-serialize"}),
}
FAILING = {
    "body is no json": (b"{{{", {}),
    "body is a number": (b"5", {}),
    "body is short": (b"[1]", {}),
    "kwargs are a list": (b"[[], [], {}]", {}),
    "no embed": (b"[[], {}, null]", {}),
    "too deep": (b'[[], {"workflow":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}, {}]", {}),
    "errbacks are a number": (b'[[], {}, {"errbacks": 5}]', {}),
    "chain is an object": (b'[[], {}, {"chain": {}}]', {}),
    "headers are a string": (SOUND, {"headers": "x"}),
    "eta is no date": (SOUND, {"eta": "tomorrow"}),
    "retries is no number": (SOUND, {"retries": "many"}),
    "shadow is an object": (SOUND, {"shadow": {"a": 1}}),
    "args are null": (b'[null, {"workflow": {}}, null]', {}),
    "kwargs are null": (b"[[], null, {}]", {}),
    "too many values": (b'[[], {"workflow": [' + b"{}," * 3_000_000 + b"{}]}, {}]", {}),
}


@pytest.mark.parametrize("raw", HOSTILE.values(), ids=HOSTILE.keys())
def test_the_worker_survives_what_is_no_message(
    stack: Stack, client: Client, worker: ChildProcess, seed: int, raw: str | bytes
) -> None:
    with redis.Redis.from_url(stack.valkey.url) as broker:
        broker.lpush("comfyui", raw)
    assert client.run(bars(seed))["outputs"]
    assert worker.returncode is None


@pytest.mark.parametrize(("body", "headers"), FAILING.values(), ids=FAILING.keys())
def test_a_message_that_names_its_job_fails_it(
    stack: Stack, client: Client, seed: int, body: bytes, headers: dict[str, Any]
) -> None:
    job_id = str(uuid.uuid4())
    with redis.Redis.from_url(stack.valkey.url) as broker:
        broker.lpush("comfyui", envelope(body, {"id": job_id, "root_id": job_id, **headers}))
    error = client.celery.AsyncResult(job_id).get(timeout=30, propagate=False)
    assert type(error).__name__ == "InvalidRequestError"
    assert client.run(bars(seed))["outputs"]


@pytest.mark.parametrize("attempts", [5, [{"number": 1}] * 9], ids=["no-list", "a-list"])
def test_attempts_in_a_header_count_for_nothing(
    stack: Stack, client: Client, attempts: object
) -> None:
    # Up to version 0.1 they were kept there. They are in the ledger, where no producer writes.
    job_id = str(uuid.uuid4())
    headers = {"id": job_id, "root_id": job_id, "attempts": attempts}
    with redis.Redis.from_url(stack.valkey.url) as broker:
        broker.lpush("comfyui", envelope(SOUND, headers))
    error = client.celery.AsyncResult(job_id).get(timeout=30, propagate=False)
    assert type(error).__name__ == "InvalidWorkflowError"
    assert str(error) == "the workflow is empty: it has no node"


def test_what_a_message_had_is_not_kept_when_its_job_has_failed(
    stack: Stack, client: Client, worker: ChildProcess, seed: int
) -> None:
    def resident_bytes() -> int:
        return int(Path(f"/proc/{worker.pid}/statm").read_text().split()[1]) * PAGE_BYTES

    # Some eighty megabytes of empty objects, in a few kilobytes.
    body = zlib.compress(b'[[], {"workflow": [' + b"{}," * 1_200_000 + b"{}]}, {}]")
    sizes = []
    for number in range(5):
        job_id = str(uuid.uuid4())
        headers = {"id": job_id, "root_id": job_id, "compression": "application/x-gzip"}
        with redis.Redis.from_url(stack.valkey.url) as broker:
            broker.lpush("comfyui", envelope(body, headers))
        error = client.celery.AsyncResult(job_id).get(timeout=30, propagate=False)
        assert type(error).__name__ == "InvalidRequestError"
        # What is left of it is let go of when a message is settled after it.
        assert client.run(bars(seed * 1000 + number))["outputs"]
        sizes.append(resident_bytes())
    assert sizes[-1] - sizes[0] < 150_000_000
