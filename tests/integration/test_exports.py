"""What the UI saves as a job: from a worker without its queue's producer, to files in the store."""

import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from PIL import Image

from sandbox.stack import Stack
from tasks import JobResult, enqueue
from tests.stack import Client, bars

EMPTY_PNG = "data:image/png,%89PNG%0D%0A%1A%0A%00%00%00%00IEND%AE%42%60%82"

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("running_worker")]


def export(seed: int, *, kind: str = "BarsRender", title: str = "Bars") -> dict[str, Any]:
    """Bars through a reroute, as the UI saves them, with a note beside."""
    image = {"name": "IMAGE", "type": "IMAGE"}
    return {
        "nodes": [
            {
                "id": 1,
                "type": kind,
                "title": title,
                "outputs": [image],
                "widgets_values": [seed, "randomize", 0.1, 2, 64, 48, 1, "ok"],
                "properties": {"cnr_id": "bars-pack", "ver": "1.2"},
            },
            {
                "id": 2,
                "type": "Reroute",
                "inputs": [{"name": "", "type": "*", "link": 1}],
                "outputs": [{"name": "", "type": "IMAGE"}],
            },
            {
                "id": 3,
                "type": "SaveImage",
                "inputs": [{"name": "images", "type": "IMAGE", "link": 2}],
                "widgets_values": ["%date:yyyy%/%Bars.seed%"],
            },
            {"id": 4, "type": "Note", "widgets_values": ["a cat"]},
        ],
        "links": [[1, 1, 0, 2, 0, "IMAGE"], [2, 2, 0, 3, 0, "IMAGE"]],
        "version": 0.4,
    }


def rendered(client: Client, result: Any) -> tuple[dict[str, Any], tuple[int, int]]:
    """What the one image of a job has embedded, and its size."""
    (output,) = result["outputs"]
    with Image.open(BytesIO(client.content(output["key"]))) as image:
        return {name: json.loads(text) for name, text in image.info.items()}, image.size


def test_an_export_is_a_job_like_any_other(client: Client, seed: int) -> None:
    result = client.run(export(seed), params={"1.width": 32}, metadata={"a": "b"})
    embedded, size = rendered(client, result)
    prompt = embedded["prompt"]
    # As the UI does: whoever drops the image there has the graph again.
    assert embedded["workflow"] == export(seed)
    assert prompt.keys() == {"1", "3"}
    assert prompt["1"]["inputs"]["seed"] == seed
    assert prompt["3"]["inputs"]["images"] == ["1", 0]
    assert (size, result["metadata"]) == ((32, 48), {"a": "b"})
    assert result["outputs"][0]["filename"].startswith(f"{seed}_")
    assert client.manifest(result) == result


def test_what_is_refused_is_refused_by_name(client: Client, seed: int) -> None:
    error = client.failure(export(seed, kind="Blars"))
    assert type(error).__name__ == "InvalidWorkflowError"
    assert str(error).startswith(
        "node 1 'Bars': the server does not know its class Blars from the pack bars-pack 1.2"
    )
    error = client.failure(export(seed), params={"1.steps": 0})
    assert "node 1 (BarsRender), input steps" in str(error)
    assert "there is no node '4'" in str(client.failure(export(seed), params={"4.text": "x"}))


def test_an_image_is_a_job(client: Client, seed: int) -> None:
    first = client.run(bars(seed))
    content = client.content(first["outputs"][0]["key"])
    url = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    again = client.run(url, params={"1.width": 32})
    assert rendered(client, again)[1] == (32, 48)
    assert "no workflow embedded" in str(client.failure(EMPTY_PNG))


@pytest.fixture
def celery(stack: Stack) -> Iterator[Celery]:
    with Celery(broker=stack.valkey.url, backend=stack.valkey.url) as app:
        yield app
        app.backend.result_consumer.stop()


def test_enqueue_takes_exports_and_files(
    client: Client, celery: Celery, tmp_path: Path, seed: int
) -> None:
    file = tmp_path / "workflow.json"
    file.write_text(json.dumps(export(seed)))
    params = {"1.width": 32}
    handles = [
        enqueue(workflow, params=params, celery=celery)
        for workflow in (export(seed), file, str(file), file.read_bytes())
    ]
    for handle in handles:
        result = handle.get(timeout=30)
        assert JobResult.model_validate(result).job_id == handle.id
        assert rendered(client, result)[1] == (32, 48)


SNIPPETS = re.findall(
    r"^```python\n(.*?)^```$",
    (Path(__file__).parents[2] / "docs" / "workflows.md").read_text(),
    re.MULTILINE | re.DOTALL,
)


@pytest.mark.parametrize("snippet", SNIPPETS, ids=["installed", "bare"])
def test_the_examples_of_the_documents_run(
    client: Client, stack: Stack, tmp_path: Path, seed: int, snippet: str
) -> None:
    (tmp_path / "workflow.json").write_text(json.dumps(export(seed)))
    (output,) = client.run(bars(seed))["outputs"]
    (tmp_path / "image.png").write_bytes(client.content(output["key"]))
    done = subprocess.run(
        [sys.executable, "-c", snippet],
        cwd=tmp_path,
        env={
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": os.pathsep.join(sys.path),
            **stack.environment(),
        },
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert re.fullmatch(rf"s3://{client.bucket}/\S+\.png\n", done.stdout), done.stderr
