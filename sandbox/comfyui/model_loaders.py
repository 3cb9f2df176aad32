"""The node classes that load models; their schemas are those of a running 0.3.64.

Loading takes the time that the server is told, whatever the model. What is loaded stays as long as
the cache keeps the loader's result: until a prompt comes that does not load it, as on real servers.
"""

import asyncio
from collections.abc import Awaitable, Callable

from sandbox.comfyui.nodes import Call, InputConfig, Installation, NodeClass, Result

_CHECK_SECONDS = 0.02
_WEIGHT_TYPES = ["default", "fp8_e4m3fn", "fp8_e4m3fn_fast", "fp8_e5m2"]
_CLIP_TYPES = [
    *("stable_diffusion", "stable_cascade", "sd3", "stable_audio", "mochi", "ltxv", "pixart"),
    *("cosmos", "lumina2", "wan", "hidream", "chroma", "ace", "omnigen2", "qwen_image"),
    "hunyuan_image",
]
# The one choice of its list that is no file.
_PIXEL_SPACE = "pixel_space"


def model_loaders(installation: Installation) -> tuple[NodeClass, ...]:
    """Those of a server, whose choices are the files that it has when it is asked."""
    listed = installation.models.listed
    return (
        NodeClass(
            name="CheckpointLoaderSimple",
            display_name="Load Checkpoint",
            category="loaders",
            description="Takes the time of loading; the picture depends on the name.",
            inputs=lambda: {"ckpt_name": [listed("checkpoints"), {}]},
            run=_loading("checkpoints", "ckpt_name", 3),
            outputs=("MODEL", "CLIP", "VAE"),
        ),
        NodeClass(
            name="UNETLoader",
            display_name="Load Diffusion Model",
            category="advanced/loaders",
            description="Takes the time of loading; the picture depends on the name.",
            inputs=lambda: {
                "unet_name": [listed("diffusion_models")],
                "weight_dtype": [_WEIGHT_TYPES],
            },
            run=_loading("diffusion_models", "unet_name", 1),
            outputs=("MODEL",),
        ),
        NodeClass(
            name="CLIPLoader",
            display_name="Load CLIP",
            category="advanced/loaders",
            description="Takes the time of loading.",
            inputs=lambda: {"clip_name": [listed("text_encoders")], "type": [_CLIP_TYPES]},
            optional={"device": [["default", "cpu"], {"advanced": True}]},
            run=_loading("text_encoders", "clip_name", 1),
            outputs=("CLIP",),
        ),
        NodeClass(
            name="VAELoader",
            display_name="Load VAE",
            category="loaders",
            description="Takes the time of loading.",
            inputs=lambda: {"vae_name": [[*listed("vae"), _PIXEL_SPACE]]},
            run=_loading("vae", "vae_name", 1),
            outputs=("VAE",),
        ),
        NodeClass(
            name="LoraLoader",
            display_name="Load LoRA",
            category="loaders",
            description="Takes no time: a LoRA is small. The picture depends on its name.",
            inputs=lambda: {
                "model": ["MODEL", {}],
                "clip": ["CLIP", {}],
                "lora_name": [listed("loras"), {}],
                "strength_model": _strength(),
                "strength_clip": _strength(),
            },
            run=_apply_lora,
            outputs=("MODEL", "CLIP"),
        ),
    )


def _loading(folder: str, name: str, outputs: int) -> Callable[[Call], Awaitable[Result]]:
    async def run(call: Call) -> Result:
        model = call.inputs[name]
        if model != _PIXEL_SPACE:
            call.loads(f"{folder}/{model}")
            await _spend(call.installation.model_seconds, call)
        return Result((model,) * outputs)

    return run


async def _spend(seconds: float, call: Call) -> None:
    clock = asyncio.get_running_loop().time
    end = clock() + seconds
    while (left := end - clock()) > 0:
        await asyncio.sleep(min(left, _CHECK_SECONDS))
        call.check()


async def _apply_lora(call: Call) -> Result:
    inputs = call.inputs
    applied = {name: inputs[name] for name in ("lora_name", "strength_model", "strength_clip")}
    return Result(((inputs["model"], applied), (inputs["clip"], applied)))


def _strength() -> InputConfig:
    return ["FLOAT", {"default": 1.0, "min": -100.0, "max": 100.0, "step": 0.01}]
