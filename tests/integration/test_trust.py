"""What a worker does not do: unsigned jobs, nodes that are not allowed, more than is allowed."""

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from celery import Celery, chain, signature

from sandbox.processes import ChildProcess
from tasks import enqueue
from tasks.signing import HEADER
from tasks.signing import signature as of
from tests.command_line import Comfyfleet
from tests.stack import Client, Stack, bars
from workers.broker.consumer import IS_SIGNED

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
SECRET = "a secret of thirty-two characters".replace(" ", "-")


class Strict(NamedTuple):
    """A worker that trusts nobody, and a producer of its queue that signs nothing."""

    client: Client
    environment: dict[str, str]
    worker: ChildProcess


@pytest.fixture(scope="module")
def strict(stack: Stack) -> Iterator[Strict]:
    broker = stack.valkey.url.replace("/0", "/5")
    own = {"CELERY_BROKER_URL": broker, "CELERY_RESULT_BACKEND": broker}
    limits = {"DENIED_NODES": "Preview*", "OUTPUT_MAX_COUNT": "2"}
    worker = stack.worker(settings={**own, **limits, "MESSAGE_SECRET": SECRET})
    client = Client({**stack.environment(), **own})
    yield Strict(client, {**stack.environment(), **own, "MESSAGE_SECRET": SECRET}, worker)
    client.close()
    worker.stop()


@pytest.fixture
def signing(strict: Strict, monkeypatch: pytest.MonkeyPatch) -> Celery:
    monkeypatch.setenv("MESSAGE_SECRET", SECRET)
    return strict.client.celery


def failure(job: Any) -> tuple[str, str]:
    error = job.get(timeout=30, propagate=False)
    assert job.state == "FAILURE"
    return type(error).__name__, str(error)


def test_an_unsigned_job_fails_and_is_gone(strict: Strict, seed: int) -> None:
    kind, message = failure(strict.client.send(bars(seed)))
    assert kind == "UntrustedMessageError"
    assert "no valid signature" in message
    assert SECRET not in strict.worker.tail(500)


def test_a_signature_counts_for_one_job_alone(
    signing: Celery, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages: list[Any] = []
    monkeypatch.setattr(
        "kombu.transport.redis.Channel._put", lambda *args, **_: messages.append(args[2])
    )
    job = enqueue(bars(seed), celery=signing)
    monkeypatch.undo()
    (message,) = messages
    other = str(uuid.uuid4())
    forged = {**message, "headers": {**message["headers"], "id": other}}
    with signing.connection_for_write() as connection:
        for one in (forged, message):
            connection.default_channel._put("comfyui", json.loads(json.dumps(one)))
    assert failure(signing.AsyncResult(other))[0] == "UntrustedMessageError"
    assert len(job.get(timeout=30)["outputs"]) == 1
    # The same once more is the same job.
    with signing.connection_for_write() as connection:
        connection.default_channel._put("comfyui", json.loads(json.dumps(message)))
    assert job.get(timeout=30)["job_id"] == job.id


def test_compressed_and_large_jobs_are_signed_too(signing: Celery, seed: int) -> None:
    job = enqueue(bars(seed), celery=signing, metadata={"long": "ü" * 10_000})
    assert job.get(timeout=30)["metadata"] == {"long": "ü" * 10_000}


def test_a_message_around_the_task_is_not_signed_by_that(strict: Strict, seed: int) -> None:
    around = {"task": {"task": "comfyui.run_workflow"}, "it": [{"workflow": bars(seed)}]}
    job = strict.client.celery.send_task("celery.map", kwargs=around, queue="comfyui")
    assert failure(job)[0] == "UntrustedMessageError"


def planted(seed: int) -> dict[str, Any]:
    """A job that somebody without the secret has in a message of another kind."""
    options = {"task_id": str(uuid.uuid4()), "queue": "comfyui"}
    kwargs = {"workflow": bars(seed)}
    return signature("comfyui.run_workflow", kwargs=kwargs, options=options, immutable=True)


@pytest.mark.parametrize(
    ("task", "arguments"),
    [
        ("comfyui.run_workflow", lambda job: {"kwargs": {}, "link_error": [job]}),
        ("celery.accumulate", lambda job: {"link": [job]}),
        ("celery.accumulate", lambda job: {"chain": [job]}),
        ("celery.chord_unlock", lambda job: {"args": ["g", job], "kwargs": {"result": []}}),
        (
            "celery.group",
            lambda job: {
                "args": [[job], [["g", None], [[["r", None], None]]], "g", [], False],
                "headers": {IS_SIGNED: True},
            },
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_worker_signs_nothing_for_who_has_no_secret(
    strict: Strict, seed: int, task: str, arguments: Any
) -> None:
    job = planted(seed)
    celery = strict.client.celery
    celery.send_task(task, queue="comfyui", **arguments(job))
    assert failure(celery.AsyncResult(job["options"]["task_id"]))[0] == "UntrustedMessageError"


def test_a_chain_goes_on_with_what_its_producer_has_signed(signing: Celery, seed: int) -> None:
    jobs = [planted(seed), planted(seed + 1000)]
    chain(*jobs, app=signing).apply_async()
    for job in jobs:
        handle = signing.AsyncResult(job["options"]["task_id"])
        assert len(handle.get(timeout=30)["outputs"]) == 1


def test_what_follows_a_job_stands_in_what_is_signed(
    signing: Celery, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages: list[Any] = []
    monkeypatch.setattr(
        "kombu.transport.redis.Channel._put", lambda *args, **_: messages.append(args[2])
    )
    job_id = str(uuid.uuid4())
    body = json.dumps([[], {"workflow": bars(seed)}, {}])
    job = enqueue(bars(seed), job_id=job_id, celery=signing)
    monkeypatch.undo()
    (message,) = messages
    follower = planted(seed + 1000)
    headers = {**message["headers"], HEADER: of(SECRET, job_id, body), "callbacks": [follower]}
    forged = {
        **message,
        "body": body,
        "headers": headers,
        "properties": {**message["properties"], "body_encoding": None},
    }
    with signing.connection_for_write() as connection:
        connection.default_channel._put("comfyui", json.loads(json.dumps(forged)))
    assert len(job.get(timeout=30)["outputs"]) == 1
    strict_result = signing.AsyncResult(follower["options"]["task_id"])
    enqueue(bars(seed), celery=signing).get(timeout=30)
    assert strict_result.state == "PENDING"


def test_the_example_signs_as_workers_want_it(strict: Strict) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "signed_celery.py"],
        env={"PATH": "/usr/bin:/bin", **strict.environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("s3://")


def test_the_command_line_signs(strict: Strict, seed: int, tmp_path: Path) -> None:
    file = tmp_path / "workflow.json"
    file.write_text(json.dumps(bars(seed)))
    comfyfleet = Comfyfleet({**strict.environment, "PYTHONPATH": str(ROOT)})
    assert comfyfleet("submit", str(file), "--wait").code == 0


def test_a_node_that_is_not_allowed_is_named_and_nothing_is_posted(
    signing: Celery, seed: int
) -> None:
    workflow = {
        **bars(seed),
        "9": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }
    job = enqueue(workflow, celery=signing)
    kind, message = failure(job)
    assert (kind, message) == (
        "NodeForbiddenError",
        "node 9 (PreviewImage): its class is not allowed here (DENIED_NODES)",
    )


def test_doctor_finds_a_fleet_well_that_allows_few_nodes(strict: Strict) -> None:
    ended = Comfyfleet(strict.environment)("doctor", "--json")
    assert ended.code == 0, ended.stdout
    last = ended.json[-1]
    assert (last["name"], last["status"]) == ("job", "ok")
    assert "refused it" in last["sentence"]
    assert "DENIED_NODES" in last["sentence"]


def test_more_files_than_allowed_fail_the_job_and_none_stays(
    strict: Strict, signing: Celery, seed: int
) -> None:
    job = enqueue(bars(seed, batch_size=3), celery=signing)
    kind, message = failure(job)
    assert (kind, "made 3 files, at most 2" in message) == ("OutputTooLargeError", True)
    assert strict.client.keys(f"{job.id}/") == set()
