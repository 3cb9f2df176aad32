"""Stand-ins that differ: in their model files, in their node classes, in how long a load takes."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox.processes import StartupError
from sandbox.stack import StandIn

from .comfyui import ComfyUI, save, show, unique
from .test_models import choices
from .test_prompts import rejected

pytestmark = pytest.mark.contract

MODELS = [
    *("checkpoints/a.safetensors", "checkpoints/sub/b.ckpt", "diffusion_models/d.sft"),
    *("text_encoders/t.safetensors", "vae/v.pt", "loras/l.safetensors"),
]


@pytest.fixture
def stand_in(tmp_path: Path) -> Iterator[StandIn]:
    """One with models of its own."""
    one = StandIn(tmp_path, models=MODELS, without_nodes=["BarsRender", "ImageInvert"])
    yield one
    one.stop()


@pytest.fixture
def server(stand_in: StandIn) -> Iterator[ComfyUI]:
    """Its client."""
    server = ComfyUI(stand_in.url)
    with server.http:
        yield server


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[StandIn]:
    """One whose loads take a while."""
    one = StandIn(tmp_path, models=MODELS, step_seconds=0.0, model_seconds=0.5)
    yield one
    one.stop()


def checkpoint(name: str) -> dict[str, Any]:
    return {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": name}}


def shown(name: str, text: str = "x") -> dict[str, Any]:
    """A workflow that loads a checkpoint and encodes a text with it."""
    encode = {"class_type": "CLIPTextEncode", "inputs": {"text": text, "clip": ["1", 1]}}
    return {"1": checkpoint(name), "2": encode, "3": show(["2", 0])}


def test_it_has_the_models_it_is_told(server: ComfyUI) -> None:
    assert server.get("/models/checkpoints").json() == ["a.safetensors", "sub/b.ckpt"]
    assert server.get("/models/controlnet").json() == []
    assert choices(server, "UNETLoader") == ["d.sft"]
    assert choices(server, "VAELoader") == ["v.pt", "pixel_space"]


def test_model_that_is_added_is_there_at_once(stand_in: StandIn, server: ComfyUI) -> None:
    rejected(server, shown("new.ckpt"))
    stand_in.add_model("checkpoints/new.ckpt")
    (stand_in.directory / "models" / "checkpoints" / "notes.txt").touch()
    assert server.get("/models/checkpoints").json() == ["a.safetensors", "new.ckpt", "sub/b.ckpt"]
    assert "new.ckpt" in choices(server, "CheckpointLoaderSimple")
    assert server.run(shown("new.ckpt"))["status"]["completed"]


def test_it_lacks_the_classes_it_is_told(server: ComfyUI) -> None:
    classes = server.get("/object_info").json()
    assert not {"BarsRender", "ImageInvert"} & set(classes)
    assert "EmptyImage" in classes
    bars = {"1": {"class_type": "BarsRender", "inputs": {}}, "2": save("1")}
    answer = server.http.post(f"{server.url}/prompt", json={"prompt": bars}, timeout=10)
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_prompt")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"models": ["nope/a.ckpt"]}, "'nope/a.ckpt' is in no model folder of this server"),
        ({"models": ["loras/a.txt"]}, "loras/a.txt is no model's name"),
        ({"models": ["loras/../../a.ckpt"]}, "'../../a.ckpt' is outside of loras"),
        ({"without_nodes": ["Nope"]}, "no such node classes: Nope"),
    ],
)
def test_what_it_cannot_have_or_lack_is_refused(
    tmp_path: Path, options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(StartupError, match=reason):
        StandIn(tmp_path, **options)


def test_graph_of_separate_loaders_runs_and_counts_what_it_loads(
    stand_in: StandIn, server: ComfyUI
) -> None:
    def workflow(strength: float) -> dict[str, Any]:
        lora = {"lora_name": "l.safetensors", "strength_model": strength, "strength_clip": 1}
        encode = {"class_type": "CLIPTextEncode", "inputs": {"text": "x", "clip": ["4", 1]}}
        links = {"model": ["4", 0], "positive": ["5", 0], "negative": ["5", 0]}
        size = {"width": 64, "height": 64, "batch_size": 1}
        chosen = {"steps": 1, "cfg": 1, "sampler_name": "euler", "scheduler": "simple"}
        return {
            "1": {
                "class_type": "UNETLoader",
                "inputs": {"unet_name": "d.sft", "weight_dtype": "default"},
            },
            "2": {
                "class_type": "CLIPLoader",
                "inputs": {"clip_name": "t.safetensors", "type": "sd3"},
            },
            "3": {"class_type": "VAELoader", "inputs": {"vae_name": "v.pt"}},
            "4": {
                "class_type": "LoraLoader",
                "inputs": {"model": ["1", 0], "clip": ["2", 0], **lora},
            },
            "5": encode,
            "6": {"class_type": "EmptyLatentImage", "inputs": size},
            "7": {
                "class_type": "KSampler",
                "inputs": {**links, **chosen, "latent_image": ["6", 0], "seed": 1, "denoise": 1},
            },
            "8": {"class_type": "VAEDecode", "inputs": {"samples": ["7", 0], "vae": ["3", 0]}},
            "9": save("8"),
        }

    weak, strong = (
        server.get("/view", **server.run(workflow(strength))["outputs"]["9"]["images"][0]).content
        for strength in (0.1, 0.9)
    )
    assert weak != strong
    assert stand_in.loads() == dict.fromkeys(
        ["diffusion_models/d.sft", "text_encoders/t.safetensors", "vae/v.pt"], 1
    )


def test_pixel_space_is_no_file_to_load(stand_in: StandIn, server: ComfyUI) -> None:
    loader = {"class_type": "VAELoader", "inputs": {"vae_name": "pixel_space"}}
    assert server.run({"1": loader, "2": show(["1", 0])})["status"]["completed"]
    assert not stand_in.loads()


def test_load_takes_its_time_unless_the_model_ran_last(slow: StandIn) -> None:
    server = ComfyUI(slow.url)
    with server.http:
        for number, name in enumerate(["a.safetensors"] * 4 + ["sub/b.ckpt", "a.safetensors"]):
            server.run(shown(name, f"text {number}"))
    took = [(one.ended or 0.0) - one.began for one in slow.execution_log()]
    # Whatever holds up one of those that load nothing.
    assert [took[0] >= 0.5, min(took[1:4]) >= 0.5, took[4] >= 0.5, took[5] >= 0.5] == [
        *(True, False, True, True)
    ]
    assert [one.loads for one in slow.execution_log()] == [
        ("checkpoints/a.safetensors",),
        *[()] * 3,
        ("checkpoints/sub/b.ckpt",),
        ("checkpoints/a.safetensors",),
    ]
    assert slow.loads() == {"checkpoints/a.safetensors": 2, "checkpoints/sub/b.ckpt": 1}


def test_freed_memory_has_no_model(slow: StandIn) -> None:
    server = ComfyUI(slow.url)
    with server.http:
        server.run(shown("a.safetensors"))
        server.post("/free", json={"free_memory": True, "unload_models": True})
        server.run(shown("a.safetensors"))
    assert slow.loads() == {"checkpoints/a.safetensors": 2}


def test_load_can_be_interrupted_and_has_then_to_be_done_again(tmp_path: Path) -> None:
    patient = StandIn(tmp_path, models=MODELS, model_seconds=30)
    server, client_id = ComfyUI(patient.url), unique()
    try:
        with server.http, server.listen(client_id) as listener:
            for _ in range(2):
                prompt_id = server.submit(shown("a.safetensors"), client_id=client_id)
                listener.until(lambda message: message["data"].get("node") == "1")
                asked = time.monotonic()
                server.post("/interrupt", json={"prompt_id": prompt_id})
                assert server.finished(prompt_id)["status"]["status_str"] == "error"
                assert time.monotonic() - asked < 5
    finally:
        patient.stop()
    assert patient.loads() == {"checkpoints/a.safetensors": 2}
