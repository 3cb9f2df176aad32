"""Secrets planted where they belong are nowhere else: no log, error, result, event or manifest."""

import base64
import functools
import json
import re
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest
import redis
import requests
from PIL import Image

from sandbox.stack import Stack
from sandbox.valkey import Valkey
from tests.stack import Client, Workflow, bars

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]

BROKER, HEADER, STORE, INPUT = (
    f"planted/{name}+secret" for name in ("broker", "header", "store", "input")
)


def picture() -> bytes:
    stream = BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "PNG")
    return stream.getvalue() + INPUT.encode()


DATA_URL = f"data:image/png;base64,{base64.b64encode(picture()).decode()}"

# Where only the start of a text is shown, this is in it.
SHORT_URL = f"data:,{INPUT}"


def forms(secret: str) -> set[str]:
    """A text as it may stand in another: as it is, quoted, and within base64."""
    encoded = {
        # Without the characters at both ends that also depend on the neighbours.
        base64.b64encode(b"x" * before + secret.encode()).decode()[4 if before else 0 :][:-4]
        for before in range(3)
    }
    return {secret, quote(secret, safe=""), quote(secret), *encoded}


def loaded(**inputs: Any) -> dict[str, Any]:
    """A workflow that uses the input file."""
    return {
        **bars(0, **inputs),
        "8": {"class_type": "LoadImage", "inputs": {"image": "photo.png"}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["8", 0], "filename_prefix": "p"}},
    }


@dataclass(frozen=True)
class Evidence:
    """Everything that was said while a job of each kind ran."""

    result: dict[str, Any]
    errors: dict[str, str]
    places: dict[str, str]
    """Where something was said to what was said there."""
    secrets: dict[str, str]


@contextmanager
def recorded_events(client: Client) -> Iterator[list[dict[str, Any]]]:
    """The events that any monitor sees."""
    events: list[dict[str, Any]] = []
    listening = threading.Event()

    def take(event: dict[str, Any]) -> None:
        events.append(event)
        listening.set()

    with client.celery.connection() as connection:
        receiver = client.celery.events.Receiver(connection, handlers={"*": take})
        thread = threading.Thread(target=receiver.capture, kwargs={"limit": None})
        thread.start()
        try:
            # The worker's heartbeats come whether or not somebody wants to hear of tasks.
            assert listening.wait(20)
            client.celery.control.enable_events()
            yield events
        finally:
            receiver.should_stop = True
            thread.join()


def inspected(client: Client, workflow: Workflow, arguments: Any) -> tuple[dict[str, Any], str]:
    """A job's result, and what the worker told of itself while the job ran."""
    handle = client.send(workflow, **arguments)
    while handle.state != "PROGRESS":
        assert handle.state in ("PENDING", "PROGRESS")
    inspect = client.celery.control.inspect(timeout=20, limit=1)
    told = [inspect.active(safe=False), inspect.active(safe=True), inspect.reserved()]
    assert any(told[0].values())
    told += [inspect.query_task(handle.id), inspect.stats(), inspect.report()]
    return handle.get(timeout=30), repr(told)


def malformed(client: Client, url: str, body: str) -> Any:
    """The failure of a message that no Celery client sends."""
    job_id = str(uuid.uuid4())
    message = {
        "body": base64.b64encode(body.encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"task": "comfyui.run_workflow", "id": job_id},
        "properties": {
            "delivery_tag": str(uuid.uuid4()),
            "delivery_info": {"exchange": "", "routing_key": "comfyui"},
            "body_encoding": "base64",
        },
    }
    with redis.Redis.from_url(url, password=BROKER) as broker:
        broker.lpush("comfyui", json.dumps(message))
    return client.celery.AsyncResult(job_id).get(timeout=30, propagate=False)


@pytest.fixture(scope="module")
def evidence(stack: Stack) -> Iterator[Evidence]:
    valkey = Valkey(stack.folder("valkey"))
    with redis.Redis.from_url(valkey.url) as admin:
        admin.config_set("requirepass", BROKER)
    broker = valkey.url.replace("//", f"//:{quote(BROKER, safe='')}@")
    comfyui = stack.stand_in()
    environment = {
        **stack.environment(comfyui.url),
        "CELERY_BROKER_URL": broker,
        "CELERY_RESULT_BACKEND": broker,
    }
    store = environment["S3_ENDPOINT_URL"]
    settings = {
        **environment,
        "LOG_LEVEL": "DEBUG",
        "JOB_MAX_ATTEMPTS": "2",
        "S3_PATIENCE_SECONDS": "1",
        "COMFYUI_HEADERS": json.dumps({"Authorization": f"Bearer {HEADER}"}),
        "S3_ENDPOINT_URL": store.replace("//", f"//me:{quote(STORE, safe='')}@"),
    }
    gone = {**settings, "S3_ENDPOINT_URL": f"http://me:{quote(STORE, safe='')}@127.0.0.1:1"}
    arguments = {"inputs": {"photo.png": DATA_URL}, "output": {"presign_seconds": 60}}
    client = Client(environment)
    worker = stack.worker(comfyui.url, settings)
    errors: dict[str, str] = {}

    with recorded_events(client) as events:
        result, told = inspected(client, loaded(seconds=6, steps=24), arguments)
        refused = {**loaded(), "7": {"class_type": "No", "inputs": {"x": DATA_URL}}}
        for kind, workflow, given in (
            ("a node fails", loaded(mode="error"), arguments),
            ("refused", refused, arguments),
            ("listed", loaded(), {"inputs": {"photo.png": [SHORT_URL]}}),
            ("as text", json.dumps({"1": {"inputs": {"image": SHORT_URL}}}), {}),
            ("as name", loaded(), {"inputs": {SHORT_URL: 5}}),
        ):
            errors[kind] = repr(client.failure(workflow, **given))
        for kind, body in (
            ("kwargs are a list", json.dumps([[], [SHORT_URL], {}])),
            ("body is no json", f"[[], {SHORT_URL}"),
        ):
            errors[kind] = repr(malformed(client, valkey.url, body))
        rule = {"method": "POST", "path": "/prompt", "status": 503, "times": 1}
        faults = f"{comfyui.url}/sandbox/faults"
        requests.put(faults, json={"http": [rule]}, timeout=5).raise_for_status()
        retried = client.run(loaded(), **arguments)
        errors["no ComfyUI"] = retried["attempts"][0]["error"]
        worker.stop()
        other = stack.worker(comfyui.url, gone)
        # It is tried again for longer than anybody waits here.
        client.send(loaded(), **arguments)
        other.wait_until(lambda: "the store of bucket" in other.log.read_text())
        other.stop()

    (signature,) = parse_qs(urlsplit(result["outputs"][0]["url"]).query)["X-Amz-Signature"]
    yield Evidence(
        result=result,
        errors=errors,
        places={
            "log": worker.log.read_text() + other.log.read_text(),
            "events": repr(events),
            "inspect": told,
            "results": stored_results(valkey.url, result["outputs"] + retried["outputs"]),
            "errors": repr(errors),
            "manifest": json.dumps(client.manifest(result)),
        },
        secrets={
            "broker": BROKER,
            "header": HEADER,
            "store": STORE,
            "aws": environment["AWS_SECRET_ACCESS_KEY"],
            "input": INPUT,
            "signature": signature,
        },
    )
    client.close()
    comfyui.stop()
    valkey.stop()


def stored_results(url: str, outputs: list[dict[str, Any]]) -> str:
    """What lies in the result backend, without the URLs that are there by contract."""
    with redis.Redis.from_url(url, password=BROKER, decode_responses=True) as backend:
        results = [backend.get(key) for key in backend.scan_iter("celery-task-meta-*")]
    whole = "\n".join(str(result) for result in results)
    urls = [json.dumps(output["url"]) for output in outputs]
    assert all(url in whole for url in urls)
    return functools.reduce(lambda text, url: text.replace(url, ""), urls, whole)


@pytest.mark.parametrize("place", ["log", "events", "inspect", "results", "errors", "manifest"])
@pytest.mark.parametrize("secret", ["broker", "header", "store", "aws", "input", "signature"])
def test_a_secret_is_in_no_place_but_its_own(evidence: Evidence, secret: str, place: str) -> None:
    said = evidence.places[place]
    found = [said.index(form) for form in forms(evidence.secrets[secret]) if form in said]
    assert not found, [said[max(0, at - 300) : at + 60] for at in found]


def test_all_of_it_happened(evidence: Evidence) -> None:
    kinds = {kind: re.split(r"\W", error)[0] for kind, error in evidence.errors.items()}
    assert kinds == {
        "a node fails": "NodeFailedError",
        "refused": "InvalidWorkflowError",
        "listed": "InvalidRequestError",
        "as text": "InvalidRequestError",
        "as name": "InvalidRequestError",
        "kwargs are a list": "InvalidRequestError",
        "body is no json": "InvalidRequestError",
        "no ComfyUI": "ComfyUIUnavailableError",
    }
    assert "data:..." in evidence.errors["listed"]
    for kind in ("task-received", "task-succeeded", "task-failed"):
        assert kind in evidence.places["events"]
    assert all("X-Amz-Signature" in output["url"] for output in evidence.result["outputs"])
    assert "DEBUG" in evidence.places["log"]
