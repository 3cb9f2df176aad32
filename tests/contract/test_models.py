"""Model files and their loaders: what a server has, and what it says of what it lacks."""

import json
from typing import Any

import pytest

from .comfyui import ComfyUI, show, unique
from .recordings import WIRE
from .test_prompts import rejected

pytestmark = pytest.mark.contract

RECORDED = json.loads((WIRE.parent / "convert" / "object_info.json").read_text())
LOADERS = {
    "CheckpointLoaderSimple": ("checkpoints", "ckpt_name"),
    "UNETLoader": ("diffusion_models", "unet_name"),
    "CLIPLoader": ("text_encoders", "clip_name"),
    "VAELoader": ("vae", "vae_name"),
    "LoraLoader": ("loras", "lora_name"),
}
PROSE = ("description", "output_tooltips")


def description(comfyui: ComfyUI, class_type: str) -> dict[str, Any]:
    return dict(comfyui.get(f"/object_info/{class_type}").json()[class_type])


def choices(comfyui: ComfyUI, class_type: str) -> list[str]:
    """The names that a loader takes."""
    _, name = LOADERS[class_type]
    return list(description(comfyui, class_type)["input"]["required"][name][0])


def comparable(told: dict[str, Any]) -> dict[str, Any]:
    """A class as it is everywhere: no prose, no files, no choices that come with a version."""
    inputs = {
        group: {name: without_choices(config) for name, config in configs.items()}
        for group, configs in told["input"].items()
    }
    return {name: told[name] for name in told if name not in PROSE} | {"input": inputs}


def without_choices(config: list[Any]) -> list[Any]:
    kind = "one of" if isinstance(config[0], list) else config[0]
    options = [{name: it for name, it in one.items() if name != "tooltip"} for one in config[1:]]
    return [kind, *options]


@pytest.mark.parametrize("class_type", LOADERS)
def test_loaders_are_described_as_recorded(comfyui: ComfyUI, class_type: str) -> None:
    told = comparable(description(comfyui, class_type))
    assert told == comparable(RECORDED[class_type])


@pytest.mark.parametrize("class_type", LOADERS)
def test_loader_takes_the_files_of_its_folder(comfyui: ComfyUI, class_type: str) -> None:
    folder, _ = LOADERS[class_type]
    files = comfyui.get(f"/models/{folder}").json()
    assert sorted(files) == files
    more = ["pixel_space"] if class_type == "VAELoader" else []
    assert choices(comfyui, class_type) == files + more


@pytest.mark.parametrize(
    ("class_type", "more"),
    [
        ("CheckpointLoaderSimple", {}),
        ("UNETLoader", {"weight_dtype": "default"}),
        ("CLIPLoader", {"type": "sd3"}),
        ("VAELoader", {}),
    ],
)
def test_missing_model_is_refused_before_anything_runs(
    comfyui: ComfyUI, class_type: str, more: dict[str, str]
) -> None:
    _, name = LOADERS[class_type]
    missing = f"{unique()}.safetensors"
    loader = {"class_type": class_type, "inputs": {name: missing, **more}}
    answer = rejected(comfyui, {"1": loader, "2": show(["1", 0])})
    assert answer["error"] == {
        "type": "prompt_outputs_failed_validation",
        "message": "Prompt outputs failed validation",
        "details": "",
        "extra_info": {},
    }
    node = answer["node_errors"]["1"]
    assert (node["class_type"], node["dependent_outputs"]) == (class_type, ["2"])
    (error,) = node["errors"]
    assert (error["type"], error["message"]) == ("value_not_in_list", "Value not in list")
    known = choices(comfyui, class_type)
    assert error["details"] == f"{name}: '{missing}' not in {known}"
    assert error["extra_info"]["received_value"] == missing
    assert error["extra_info"]["input_config"][0] == known


def test_missing_class_is_refused_by_name_and_nothing_else_is_said(comfyui: ComfyUI) -> None:
    workflow = {
        "1": {"class_type": "NoSuchNode", "inputs": {}, "_meta": {"title": "Mine"}},
        "2": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": unique()}},
        "3": show(["1", 0]),
        "4": show(["2", 0]),
    }
    assert rejected(comfyui, workflow) == {
        "error": {
            "type": "invalid_prompt",
            "message": "Cannot execute because node NoSuchNode does not exist.",
            "details": "Node ID '#1'",
            "extra_info": {},
        },
        "node_errors": {},
    }


def test_optional_input_may_be_left_out_and_is_checked_when_given(comfyui: ComfyUI) -> None:
    inputs = {"clip_name": unique(), "type": "sd3", "device": "gpu"}
    loader = {"class_type": "CLIPLoader", "inputs": inputs}
    errors = rejected(comfyui, {"1": loader, "2": show(["1", 0])})["node_errors"]["1"]["errors"]
    assert {error["extra_info"]["input_name"] for error in errors} == {"clip_name", "device"}


def test_unknown_folder_is_not_found(comfyui: ComfyUI) -> None:
    # Names of folders that older servers had are none.
    assert [comfyui.get(f"/models/{name}").status_code for name in ("unet", "clip")] == [404] * 2
