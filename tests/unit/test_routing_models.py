"""Which model files a workflow uses, and which are nearly the one that is missing."""

from typing import Any

import pytest

from workers.routing.models import is_model, models_key, near_models

HEAVY = ("checkpoints", "diffusion_models", "unet", "text_encoders", "clip", "diffusers")


def loading(*files: str) -> dict[str, Any]:
    """A workflow with a loader for each of these files."""
    return {
        str(number): {"class_type": "Loader", "inputs": {"name": file, "strength": 1.0}}
        for number, file in enumerate(files)
    }


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a.safetensors", True),
        ("sub/a.CKPT", True),
        ("a.gguf", True),
        ("a.png", False),
        ("safetensors", False),
        ("", False),
        (None, False),
        (["4", 0], False),
    ],
)
def test_a_model_is_known_by_its_ending(value: object, expected: bool) -> None:
    assert is_model(value) is expected


# What takes long to load


def test_the_models_of_a_workflow_have_a_name() -> None:
    models = {"checkpoints": ["a.safetensors", "b.safetensors"]}
    key = models_key(loading("a.safetensors"), models)
    assert len(key) == 16
    assert key != models_key(loading("b.safetensors"), models)
    assert key != models_key(loading("a.safetensors", "b.safetensors"), models)


@pytest.mark.parametrize("folder", HEAVY)
def test_what_is_in_a_heavy_folder_counts(folder: str) -> None:
    assert models_key(loading("a.gguf"), {folder: ["a.gguf"]})


@pytest.mark.parametrize("folder", ["loras", "vae", "controlnet", "embeddings", "upscale_models"])
def test_what_is_loaded_beside_does_not_count(folder: str) -> None:
    models = {"checkpoints": ["a.safetensors"], folder: ["x.safetensors", "y.safetensors"]}
    assert models_key(loading("x.safetensors"), models) == ""
    plain = models_key(loading("a.safetensors"), models)
    assert models_key(loading("a.safetensors", "x.safetensors"), models) == plain


def test_neither_order_nor_repetition_nor_other_inputs_count() -> None:
    models = {"unet": ["a.gguf"], "clip": ["b.gguf", "c.gguf"]}
    key = models_key(loading("a.gguf", "b.gguf"), models)
    assert models_key(loading("b.gguf", "a.gguf", "b.gguf"), models) == key
    workflow = loading("a.gguf", "b.gguf")
    workflow["9"] = {"class_type": "KSampler", "inputs": {"seed": 5, "model": ["0", 0]}}
    assert models_key(workflow, models) == key
    # Nor what else the server has.
    assert models_key(workflow, {**models, "checkpoints": ["d.ckpt"]}) == key


@pytest.mark.parametrize("models", [{}, {"checkpoints": []}, {"checkpoints": ["b.safetensors"]}])
def test_a_file_that_is_not_there_does_not_count(models: dict[str, list[str]]) -> None:
    assert models_key(loading("a.safetensors"), models) == ""


def test_a_workflow_without_models_has_no_name_for_them() -> None:
    assert models_key(loading("a.png"), {"checkpoints": ["a.png"]}) == ""


# What is nearly it


@pytest.mark.parametrize(
    ("missing", "there", "expected"),
    [
        pytest.param(
            "flux1-dev.safetensors",
            {"unet": ["flux1-dev.safetensors"]},
            ["flux1-dev.safetensors in unet"],
            id="another kind of folder",
        ),
        pytest.param(
            "grain.safetensors",
            {"loras": ["film/grain.safetensors"]},
            ["film/grain.safetensors in loras"],
            id="another folder",
        ),
        pytest.param(
            "film/grain.safetensors",
            {"loras": ["film\\grain.safetensors"]},
            ["film\\grain.safetensors in loras"],
            id="a server on Windows",
        ),
        pytest.param(
            "film\\Grain.safetensors",
            {"loras": ["grain.safetensors"]},
            ["grain.safetensors in loras"],
            id="a workflow from Windows",
        ),
        pytest.param(
            "flux1-dev.safetensors",
            {"diffusion_models": ["flux1-dev-fp8.safetensors"]},
            ["flux1-dev-fp8.safetensors in diffusion_models"],
            id="another precision",
        ),
        pytest.param(
            "flux1-dev-fp8_e4m3fn.safetensors",
            {"unet": ["flux1-dev-Q8_0.gguf", "flux1-dev-Q4_K_S.gguf"]},
            ["flux1-dev-Q4_K_S.gguf in unet", "flux1-dev-Q8_0.gguf in unet"],
            id="other quantisations",
        ),
        pytest.param(
            "v1-5-pruned-emaonly.ckpt",
            {"checkpoints": ["v1-5-pruned-emaonly-fp16.safetensors"]},
            ["v1-5-pruned-emaonly-fp16.safetensors in checkpoints"],
            id="another form",
        ),
        pytest.param(
            "sd_xl_base_1.0.safetensors",
            {"checkpoints": ["sd_xl_base_1.0_0.9vae.safetensors"]},
            ["sd_xl_base_1.0_0.9vae.safetensors in checkpoints"],
            id="a name that is alike",
        ),
        pytest.param(
            "flux1-dev.safetensors",
            {"checkpoints": ["sd15.ckpt", "dreamshaper_8.safetensors"], "vae": ["ae.safetensors"]},
            [],
            id="nothing near",
        ),
        pytest.param("a.safetensors", {}, [], id="nothing there"),
        pytest.param(
            "flux1-schnell.safetensors",
            {"unet": ["flux1-dev.safetensors"]},
            [],
            id="another model of the family",
        ),
    ],
)
def test_near_models(missing: str, there: dict[str, list[str]], expected: list[str]) -> None:
    assert near_models(missing, there) == expected


def test_the_same_name_comes_first_and_three_are_enough() -> None:
    there = {
        "checkpoints": ["flux1-devs.safetensors", "flux1-dev-fp8.safetensors"],
        "unet": ["sub/flux1-dev.safetensors", "flux1_dev.gguf"],
    }
    assert near_models("flux1-dev.safetensors", there) == [
        "sub/flux1-dev.safetensors in unet",
        "flux1-dev-fp8.safetensors in checkpoints",
        "flux1_dev.gguf in unet",
    ]


def test_of_very_many_files_some_are_compared() -> None:
    there = {"loras": [f"{number:08}.safetensors" for number in range(5000)], "vae": ["a.ckpt"]}
    assert near_models("a.ckpt", there) == []
