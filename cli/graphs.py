"""The demo's workflows."""

from typing import Any


def text_to_image(
    checkpoint: str, prompt: str, seed: int, *, batch_size: int = 1
) -> dict[str, Any]:
    """The SD1.5 graph that ComfyUI opens with: prompts, sampler, decoder, saver."""
    return {
        "3": {
            "class_type": "KSampler",
            "inputs": {
                "seed": seed,
                "steps": 20,
                "cfg": 8.0,
                "sampler_name": "euler",
                "scheduler": "normal",
                "denoise": 1.0,
                "model": ["4", 0],
                "positive": ["6", 0],
                "negative": ["7", 0],
                "latent_image": ["5", 0],
            },
        },
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": checkpoint}},
        "5": {
            "class_type": "EmptyLatentImage",
            "inputs": {"width": 512, "height": 512, "batch_size": batch_size},
        },
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": prompt, "clip": ["4", 1]}},
        "7": {
            "class_type": "CLIPTextEncode",
            "inputs": {"text": "text, watermark", "clip": ["4", 1]},
        },
        "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
        "9": {
            "class_type": "SaveImage",
            "inputs": {"filename_prefix": "comfyfleet", "images": ["8", 0]},
        },
    }


def plain_image(seed: int, *, batch_size: int = 1) -> dict[str, Any]:
    """A graph that needs no model: one colour, inverted."""
    return {
        "1": {
            "class_type": "EmptyImage",
            "inputs": {
                "width": 512,
                "height": 512,
                "batch_size": batch_size,
                "color": seed % 0xFFFFFF,
            },
        },
        "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "3": {
            "class_type": "SaveImage",
            "inputs": {"filename_prefix": "comfyfleet", "images": ["2", 0]},
        },
    }


def runnable_graph(object_info: dict[str, Any], prompt: str, seed: int) -> dict[str, Any]:
    """The text-to-image graph if the server has a checkpoint, else the one without models."""
    loader = object_info.get("CheckpointLoaderSimple", {})
    schema = loader.get("input", {}).get("required", {}).get("ckpt_name", [[]])
    # Newer servers write a choice as ["COMBO", {"options": [...]}].
    checkpoints = schema[1].get("options", []) if schema[0] == "COMBO" else schema[0]
    if not checkpoints:
        return plain_image(seed)
    # The graph's sizes are right for SD1.5.
    best = next((name for name in checkpoints if "v1-5" in name or "sd15" in name), checkpoints[0])
    return text_to_image(best, prompt, seed)
