"""What a server tells of itself, and what holds for all routes."""

import pytest

from .comfyui import ComfyUI, any_seed, save

pytestmark = pytest.mark.contract


def test_version_is_in_the_system_stats(comfyui: ComfyUI) -> None:
    stats = comfyui.get("/system_stats").json()
    assert stats["system"]["comfyui_version"].count(".") == 2
    assert isinstance(stats["devices"][0]["vram_free"], int)


@pytest.mark.parametrize(
    "path", ["/prompt", "/queue", "/history", "/features", "/models", "/object_info/KSampler"]
)
def test_every_route_is_also_under_api(comfyui: ComfyUI, path: str) -> None:
    assert comfyui.get(f"/api{path}").json() == comfyui.get(path).json()


def test_all_node_classes_at_once(comfyui: ComfyUI) -> None:
    classes = comfyui.get("/object_info").json()
    assert classes["SaveImage"]["output_node"] is True
    one = comfyui.get("/object_info/SaveAnimatedWEBP").json()
    assert one == {"SaveAnimatedWEBP": classes["SaveAnimatedWEBP"]}
    method = one["SaveAnimatedWEBP"]["input"]["required"]["method"]
    assert method == [["default", "fastest", "slowest"]]


def test_checkpoints_are_the_choices_of_their_loader(comfyui: ComfyUI) -> None:
    loader = comfyui.get("/object_info/CheckpointLoaderSimple").json()["CheckpointLoaderSimple"]
    choices, _ = loader["input"]["required"]["ckpt_name"]
    assert comfyui.get("/models/checkpoints").json() == choices


def test_body_above_the_upload_limit_is_refused(comfyui: ComfyUI) -> None:
    limit = comfyui.get("/features").json()["max_upload_size"]
    assert comfyui.post("/prompt", data=bytes(limit + 1)).status_code == 413


def test_text_to_image(comfyui: ComfyUI) -> None:
    checkpoints = comfyui.get("/models/checkpoints").json()
    if not checkpoints:
        pytest.skip("the server has no checkpoint")

    def workflow(text: str) -> dict[str, object]:
        encode = {"class_type": "CLIPTextEncode"}
        size = {"width": 128, "height": 64, "batch_size": 1}
        sampler = {
            "model": ["4", 0],
            "positive": ["6", 0],
            "negative": ["7", 0],
            "latent_image": ["5", 0],
            "seed": seed,
            "steps": 4,
            "cfg": 8,
            "sampler_name": "euler",
            "scheduler": "normal",
            "denoise": 1,
        }
        return {
            "3": {"class_type": "KSampler", "inputs": sampler},
            "4": {
                "class_type": "CheckpointLoaderSimple",
                "inputs": {"ckpt_name": checkpoints[0]},
            },
            "5": {"class_type": "EmptyLatentImage", "inputs": size},
            "6": {**encode, "inputs": {"text": text, "clip": ["4", 1]}},
            "7": {**encode, "inputs": {"text": "ugly", "clip": ["4", 1]}},
            "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
            "9": save("8", "txt2img"),
        }

    seed = any_seed()
    first = comfyui.run(workflow("a cat"), client_id="me")
    second = comfyui.run(workflow("a dog"), client_id="me")
    cached = dict(second["status"]["messages"])["execution_cached"]["nodes"]
    assert sorted(cached) == ["4", "5", "7"], "only what depends on the text is run again"
    cat, dog = (
        comfyui.get("/view", **entry["outputs"]["9"]["images"][0]).content
        for entry in (first, second)
    )
    assert cat != dog
