"""Every kind of output through a real worker: found, named, stored, stripped, made small."""

import hashlib
import json
import urllib.request
from base64 import b64encode
from io import BytesIO
from typing import Any

import pytest
from PIL import Image

from tests.recordings import recorded_outputs
from tests.stack import Client, bars

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("running_worker")]

RECORDED = recorded_outputs()
KINDS = {"SaveLatent": "latents", "SaveGLB": "3d"} | dict.fromkeys(
    ("SaveAudio", "SaveAudioMP3", "SaveAudioOpus"), "audio"
)


def exhibit(files: dict[str, bytes], shown: Any) -> dict[str, Any]:
    """A node that makes files, by their paths on the server, and shows something."""
    encoded = {path: b64encode(content).decode() for path, content in files.items()}
    inputs = {"files": json.dumps(encoded), "shown": json.dumps(shown)}
    return {"class_type": "SandboxExhibit", "inputs": inputs}


def every_kind(seed: int) -> tuple[dict[str, Any], dict[str, bytes]]:
    """A workflow that makes one file of each kind, and those files by node."""
    workflow, contents = {}, {}
    for number, (name, (output, content)) in enumerate(RECORDED.items(), seed):
        text = json.dumps(output).replace('"kinds"', f'"kinds/{number}"')
        shown = json.loads(text)
        (file,) = (one for value in shown.values() for one in value if isinstance(one, dict))
        path = f"output/{file['subfolder']}/{file['filename']}"
        workflow[name] = exhibit({path: content}, shown)
        contents[name] = content
    return workflow, contents


def test_every_kind_comes_through_as_it_is(client: Client, seed: int) -> None:
    workflow, contents = every_kind(seed)
    result = client.run(workflow)
    assert {one["node_id"] for one in result["outputs"]} == contents.keys()
    for output in result["outputs"]:
        node_id = output["node_id"]
        assert client.content(output["key"]) == contents[node_id]
        assert output["kind"] == KINDS.get(node_id, "images")
        assert output["sha256"] == hashlib.sha256(contents[node_id]).hexdigest()
        assert (output["stripped"], output["thumbnail"]) == (None, None)
    assert result["values"]["SaveVideo"] == {"animated": [True]}
    assert "SaveImage" not in result["values"]


def test_of_every_kind_the_workflow_stays_out_and_pictures_are_made_small(
    client: Client, seed: int
) -> None:
    workflow, contents = every_kind(seed)
    result = client.run(workflow, output={"strip_metadata": True, "thumbnail": 16})
    for output in result["outputs"]:
        stored = client.content(output["key"])
        assert output["stripped"] is True
        assert stored != contents[output["node_id"]]
        assert not any(word in stored for word in (b"SECRETWORKFLOW", b"class_type"))
        assert (output["size_bytes"], output["sha256"]) == (
            len(stored),
            hashlib.sha256(stored).hexdigest(),
        )
        is_picture = output["content_type"].startswith("image/")
        assert (output["thumbnail"] is not None) is is_picture
        if is_picture:
            assert Image.open(BytesIO(stored)).size == (32, 32)
    assert sum(one["thumbnail"] is not None for one in result["outputs"]) == 3


def test_a_thumbnail_is_described_presigned_and_in_the_manifest(client: Client, seed: int) -> None:
    result = client.run(bars(seed), output={"thumbnail": 32, "presign_seconds": 60})
    (output,) = result["outputs"]
    small = output["thumbnail"]
    with urllib.request.urlopen(small["url"], timeout=5) as answer:
        content = answer.read()
    assert Image.open(BytesIO(content)).size == (small["width"], small["height"]) == (32, 24)
    key = f"{result['job_id']}/1/2/0.thumbnail-{output['filename']}.webp"
    assert small == {
        "bucket": client.bucket,
        "key": key,
        "uri": f"s3://{client.bucket}/{key}",
        "url": small["url"],
        "content_type": "image/webp",
        "width": 32,
        "height": 24,
        "size_bytes": len(content),
    }
    (stored,) = client.manifest(result)["outputs"]
    assert stored["thumbnail"] == {**small, "url": None}


def test_what_has_no_place_for_metadata_is_told_of(client: Client, seed: int) -> None:
    path = f"output/{seed}.txt"
    node = exhibit({path: b"a cat"}, {"text": [{"filename": f"{seed}.txt"}]})
    (output,) = client.run({"1": node}, output={"strip_metadata": True})["outputs"]
    assert (output["stripped"], client.content(output["key"])) == (False, b"a cat")


def test_files_are_found_where_nodes_put_them_each_once(client: Client, seed: int) -> None:
    def file(name: str, **more: Any) -> dict[str, Any]:
        return {"filename": f"{seed}-{name}", "subfolder": "odd", "type": "output", **more}

    video = file("a.mp4", fullpath="/srv/output/odd/a.mp4", frame_rate=8.0)
    shown = {
        "gifs": [video],
        "nested": [{"files": [file("b.txt")], "count": 2}],
        "again": [file("a.mp4")],
        "result": ["odd/mesh.glb", None],
        "facts": [1, 2.5, True, "a cat"],
        "images": [{"filename": f"{seed}.png", "subfolder": "", "type": "temp"}],
    }
    names = {"output/odd": ("a.mp4", "b.txt")}
    files = {f"{place}/{seed}-{one}": one.encode() for place, many in names.items() for one in many}
    workflow = {
        "1": exhibit({**files, f"temp/{seed}.png": b"preview"}, shown),
        "2": exhibit({}, {"video": [file("a.mp4")]}),
    }
    result = client.run(workflow)
    found = [(one["node_id"], one["kind"], one["filename"]) for one in result["outputs"]]
    assert sorted(found, key=lambda one: one[2]) in (
        [("1", "gifs", f"{seed}-a.mp4"), ("1", "files", f"{seed}-b.txt")],
        # Whichever of the two nodes comes first.
        [("2", "video", f"{seed}-a.mp4"), ("1", "files", f"{seed}-b.txt")],
    )
    assert len(client.keys(f"{result['job_id']}/")) == 3
    assert result["values"] == {
        "1": {
            "nested": [{"count": 2}],
            "result": ["odd/mesh.glb", None],
            "facts": [1, 2.5, True, "a cat"],
        }
    }
    with_temp = client.run(workflow, output={"include_temp": True})["outputs"]
    assert f"{seed}.png" in {one["filename"] for one in with_temp}
