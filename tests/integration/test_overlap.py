"""What happens while the GPU works: files are stored, the inputs of the next job are placed."""

import base64
from io import BytesIO

import pytest
from PIL import Image

from tests.faults.scenes import Fleet, eventually, executing, together
from tests.integration.tap import HttpTap
from tests.stack import Workflow, bars

pytestmark = pytest.mark.integration


def in_two_parts(seed: int, *, seconds: float, mode: str = "ok") -> Workflow:
    """A workflow that saves one picture at once, and another one when it has taken its time."""
    first, second = bars(seed), bars(seed + 1, seconds=seconds, steps=int(10 * seconds), mode=mode)
    second["2"]["inputs"]["images"] = ["3", 0]
    return {**first, "3": second["1"], "4": second["2"]}


def png(colour: str) -> bytes:
    stream = BytesIO()
    Image.new("RGB", (24, 16), colour).save(stream, "PNG")
    return stream.getvalue()


def passed_on(image: str, seed: int) -> Workflow:
    return {
        **bars(seed),
        "5": {"class_type": "LoadImage", "inputs": {"image": image}},
        "6": {"class_type": "SaveImage", "inputs": {"images": ["5", 0], "filename_prefix": "in"}},
    }


@together
def test_a_file_is_stored_while_other_nodes_execute(fleet: Fleet) -> None:
    server = fleet.server()
    fleet.worker(server)
    job = fleet.send(in_two_parts(1, seconds=4))
    result = job.get(timeout=60)
    (executed,) = server.execution_log()
    assert executed.ended is not None
    # By the store's clock, which here is the server's: nobody has to look while it executes.
    first, second = sorted(stored_at(fleet, one["key"]) for one in result["outputs"])
    assert first < executed.ended - 1.0 < second
    assert fleet.stored(job.id) == {"manifest.json"} | {
        one["key"].removeprefix(f"{job.id}/") for one in result["outputs"]
    }


def stored_at(fleet: Fleet, key: str) -> float:
    """When an object was stored, in Unix seconds."""
    found = fleet.client.s3.head_object(Bucket=fleet.client.bucket, Key=key)
    return found["LastModified"].timestamp()


@together
def test_what_a_failed_job_has_stored_early_is_removed(fleet: Fleet) -> None:
    server = fleet.server()
    with HttpTap(fleet.stack.seaweedfs.url) as store:
        worker = fleet.worker(server, S3_ENDPOINT_URL=store.url)
        job = fleet.send(in_two_parts(1, seconds=6, mode="error"))
        job.get(timeout=60, propagate=False)
        assert job.state == "FAILURE"
        folder = f"/{fleet.client.bucket}/{job.id}/"
        assert any(one[0] == "PUT" and one[1].startswith(folder) for one in store.requests)
        assert fleet.stored(job.id) == set()
        worker.stop()


@together
def test_what_a_cancelled_job_has_stored_early_is_removed(fleet: Fleet) -> None:
    server = fleet.server()
    fleet.worker(server)
    job = fleet.send(in_two_parts(1, seconds=20))
    eventually(lambda: fleet.stored(job.id))
    job.revoke(terminate=True)
    eventually(lambda: job.state == "REVOKED")
    assert eventually(fleet.has_drained)
    assert fleet.stored(job.id) == set()


@together
def test_the_same_input_is_fetched_and_placed_once(fleet: Fleet) -> None:
    server = fleet.server()
    key = f"sources/{server.port}.png"
    fleet.client.s3.put_object(Bucket=fleet.client.bucket, Key=key, Body=png("#ff0000"))
    source = f"s3://{fleet.client.bucket}/{key}"
    fetched, placed = ("GET", f"/{fleet.client.bucket}/{key}"), ("POST", "/upload/image")
    with HttpTap(fleet.stack.seaweedfs.url) as store, HttpTap(server.url) as comfyui:
        worker = fleet.worker(server, url=comfyui.url, S3_ENDPOINT_URL=store.url)

        def run(seed: int, content: str) -> None:
            fleet.send(passed_on("a.png", seed), inputs={"a.png": content}).get(timeout=30)

        run(1, source)
        run(2, source)
        # The same content by another way.
        run(3, f"data:image/png;base64,{base64.b64encode(png('#ff0000')).decode()}")
        assert (store.requests.count(fetched), store.unchanged) == (2, 1)
        assert comfyui.requests.count(placed) == 1

        # It may be another server after that, with other files.
        websockets = comfyui.requests.count(("GET", "/ws"))
        comfyui.cut()
        # The worker knows of it once it has come back.
        eventually(lambda: comfyui.requests.count(("GET", "/ws")) > websockets)
        run(4, source)
        assert ("HEAD", "/view") in comfyui.requests
        assert comfyui.requests.count(placed) == 1

        fleet.client.s3.put_object(Bucket=fleet.client.bucket, Key=key, Body=png("#00ff00"))
        run(5, source)
        assert (store.requests.count(fetched), store.unchanged) == (4, 2)
        assert comfyui.requests.count(placed) == 2
        worker.stop()


@together
def test_the_next_jobs_inputs_are_placed_while_one_executes(fleet: Fleet) -> None:
    server = fleet.server()
    with HttpTap(server.url) as comfyui:
        worker = fleet.worker(server, url=comfyui.url)
        long = fleet.send(bars(1, seconds=60, steps=600))
        executing(server)
        source = f"data:image/png;base64,{base64.b64encode(png('#0000ff')).decode()}"
        job = fleet.send(passed_on("b.png", 2), inputs={"b.png": source})
        eventually(lambda: comfyui.requests.count(("POST", "/prompt")) == 2)
        assert comfyui.requests.count(("POST", "/upload/image")) == 1
        assert len(server.executions()) == 1
        long.revoke(terminate=True)
        assert job.get(timeout=30)["instance"] == comfyui.url
        worker.stop()
