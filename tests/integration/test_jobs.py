"""The main job: a bare producer, a worker, real broker, real store, the stand-in ComfyUI."""

import hashlib
import json
import time
import urllib.request
import uuid
from io import BytesIO

import pytest
from PIL import Image

from sandbox.stack import Stack
from tasks import JobResult
from tests.stack import Client, bars

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("running_worker")]


def test_every_output_is_stored_and_described(client: Client, stack: Stack, seed: int) -> None:
    result = client.run(bars(seed, batch_size=2), metadata={"customer": "7"})
    assert len(result["outputs"]) == 2
    for index, output in enumerate(result["outputs"]):
        content = client.content(output["key"])
        assert output == {
            "node_id": "2",
            "kind": "images",
            "filename": output["filename"],
            "bucket": client.bucket,
            "key": f"{result['job_id']}/1/2/{index}-{output['filename']}",
            "uri": f"s3://{client.bucket}/{output['key']}",
            "url": None,
            "stripped": None,
            "thumbnail": None,
            "content_type": "image/png",
            "size_bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        assert Image.open(BytesIO(content)).size == (64, 48)
    assert result["instance"] == stack.comfyui_url
    assert result["metadata"] == {"customer": "7"}
    assert [a["prompt_id"] for a in result["attempts"]] == [result["prompt_id"]]
    assert result["attempts"][0]["error"] is None


def test_the_manifest_is_the_result(client: Client, seed: int) -> None:
    result = client.run(bars(seed))
    assert result["manifest"]["key"] == f"{result['job_id']}/manifest.json"
    assert client.manifest(result) == result
    assert JobResult.model_validate(result).job_id == result["job_id"]


def test_timings_add_up(client: Client, seed: int) -> None:
    timings = client.run(bars(seed, seconds=0.4))["timings"]
    # It begins before the answer to its submission has come.
    assert 0.4 <= timings["staged"] + timings["executed"] < 10
    # Taken between messages: how long is asked where messages have time to arrive.
    assert 0 < timings["nodes"]["1"] <= timings["staged"] + timings["executed"] + 0.01
    parts = timings["staged"] + timings["executed"] + timings["uploaded"]
    assert timings["total"] == pytest.approx(parts, abs=0.01)
    assert timings["queued"] >= 0


def test_the_producer_may_choose_the_id(client: Client, seed: int) -> None:
    job_id = f"order/../{uuid.uuid4()}"
    handle = client.send(bars(seed), options={"task_id": job_id})
    result = handle.get(timeout=30)
    assert result["job_id"] == handle.id == job_id
    assert client.keys(f"order%2F..%2F{job_id.rpartition('/')[2]}/")


def test_output_options(client: Client, seed: int) -> None:
    output = {"prefix": "shots/7", "presign_seconds": 60}
    result = client.run(bars(seed), output=output)
    (stored,) = result["outputs"]
    assert stored["key"].startswith(f"shots/7/{result['job_id']}/")
    assert result["manifest"]["key"].startswith(f"shots/7/{result['job_id']}/")
    with urllib.request.urlopen(stored["url"], timeout=5) as answer:
        assert hashlib.sha256(answer.read()).hexdigest() == stored["sha256"]
    assert client.manifest(result)["outputs"][0]["url"] is None


def test_previews_are_stored_on_request(client: Client, seed: int) -> None:
    workflow = bars(seed)
    workflow["2"] = {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}
    assert client.run(workflow)["outputs"] == []
    assert len(client.run(workflow, output={"include_temp": True})["outputs"]) == 1


def test_params_set_inputs(client: Client, seed: int) -> None:
    result = client.run(bars(seed), params={"1.width": 32, "1.batch_size": 3})
    sizes = {Image.open(BytesIO(client.content(o["key"]))).size for o in result["outputs"]}
    assert (len(result["outputs"]), sizes) == (3, {(32, 48)})


def test_values_that_are_no_files(client: Client, seed: int) -> None:
    workflow = bars(seed)
    workflow["3"] = {"class_type": "PreviewAny", "inputs": {"source": "a cat"}}
    assert client.run(workflow)["values"] == {"3": {"text": ["a cat"]}}


def test_values_that_look_like_celerys_own_are_left_alone(client: Client, seed: int) -> None:
    workflow = bars(seed)
    curve = {"__type__": "CURVE", "__value__": [[0, 0], [1, 1]]}
    workflow["1"]["inputs"].update(curve=curve, id={"__type__": "uuid", "__value__": "x"})
    (output,) = client.run(workflow)["outputs"]
    with Image.open(BytesIO(client.content(output["key"]))) as image:
        assert json.loads(image.info["prompt"])["1"]["inputs"]["curve"] == curve


def test_a_cached_run_is_stored_like_any_other(client: Client, seed: int) -> None:
    first, second = client.run(bars(seed)), client.run(bars(seed))
    assert first["job_id"] != second["job_id"]
    assert first["outputs"][0]["filename"] == second["outputs"][0]["filename"]
    assert first["outputs"][0]["sha256"] == second["outputs"][0]["sha256"]
    assert client.content(second["outputs"][0]["key"])


def test_the_workflow_is_embedded_in_the_image(client: Client, seed: int) -> None:
    (output,) = client.run(bars(seed))["outputs"]
    image = Image.open(BytesIO(client.content(output["key"])))
    assert json.loads(image.info["prompt"])["1"]["inputs"]["seed"] == seed


def test_progress_goes_up_and_names_node_and_step(client: Client, stack: Stack, seed: int) -> None:
    job_id = str(uuid.uuid4())
    with client.following(job_id) as told:
        began = time.monotonic()
        client.send(bars(seed, seconds=4, steps=16), options={"task_id": job_id})
        *progress, end = told
        elapsed = time.monotonic() - began
    seen = [meta["result"] for meta in progress]
    assert {meta["status"] for meta in progress} == {"PROGRESS"}
    assert 1 < end["result"]["timings"]["nodes"]["1"] < elapsed
    assert set(seen[-1]) == {
        *("stage", "value", "node_id", "class_type", "step", "steps", "instance")
    }
    assert [p["value"] for p in seen] == sorted(p["value"] for p in seen)
    executing = [p for p in seen if p["stage"] == "executing" and p["step"]]
    assert len(executing) >= 3
    last = executing[-1]
    assert (last["node_id"], last["class_type"], last["steps"]) == ("1", "BarsRender", 16)
    assert 0 < last["step"] <= 16
    assert last["instance"] == stack.comfyui_url
    # At most one write each half second.
    assert len(seen) <= elapsed / 0.5 + 1


def test_a_node_that_raises_fails_the_job_at_once(client: Client, stack: Stack, seed: int) -> None:
    before = sum(stack.comfyui.executions().values())
    error = client.failure(bars(seed, mode="error"))
    assert type(error).__name__ == "NodeFailedError"
    assert str(error) == "node 1 (BarsRender) raised ValueError: bars: deliberate node failure"
    assert sum(stack.comfyui.executions().values()) == before + 1


def test_a_timeout_stops_the_prompt(client: Client, seed: int) -> None:
    error = client.failure(bars(seed, seconds=30, steps=300), timeout_seconds=0.5)
    assert type(error).__name__ == "JobTimeoutError"
    # The server is free again: the next job need not wait for the thirty seconds.
    assert client.run(bars(seed))["timings"]["executed"] < 15


def test_the_same_id_with_another_workflow_is_still_the_first_job(
    client: Client, stack: Stack, seed: int
) -> None:
    job_id = str(uuid.uuid4())
    first = client.send(bars(seed), options={"task_id": job_id}).get(timeout=30)
    other = Client(stack.environment())
    before = stack.comfyui.executions()
    other.send(bars(seed + 500), options={"task_id": job_id})
    client.run(bars(seed + 501))
    assert len(stack.comfyui.executions().keys() - before.keys()) == 1
    (output,) = client.manifest(first)["outputs"]
    assert hashlib.sha256(client.content(output["key"])).hexdigest() == output["sha256"]
    other.close()


def test_the_same_id_again_gives_the_same_result(client: Client, stack: Stack, seed: int) -> None:
    job_id = str(uuid.uuid4())
    first = client.send(bars(seed), options={"task_id": job_id}).get(timeout=30)
    # Another producer: this one's Celery has the first answer in its memory.
    other = Client(stack.environment())
    again = other.send(bars(seed), options={"task_id": job_id})
    later = client.run(bars(seed + 1))
    assert later["job_id"] != job_id
    assert again.get(timeout=30) == first == client.manifest(first)
    other.close()
