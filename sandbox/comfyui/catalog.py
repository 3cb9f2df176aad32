"""The node classes that the stand-in has; their schemas are those of real servers."""

import asyncio
import json
import os
import signal
from dataclasses import dataclass, replace
from secrets import choice
from string import ascii_lowercase

from PIL import ImageOps

from sandbox.comfyui import rendering
from sandbox.comfyui.exhibits import SANDBOX_EXHIBIT
from sandbox.comfyui.files import Series, open_series
from sandbox.comfyui.loaders import loaders
from sandbox.comfyui.model_loaders import model_loaders
from sandbox.comfyui.nodes import (
    Call,
    Installation,
    NodeClass,
    OutOfMemoryError,
    Result,
)

SCHEDULERS = (
    *("simple", "sgm_uniform", "karras", "exponential", "ddim_uniform", "beta", "normal"),
    *("linear_quadratic", "kl_optimal"),
)
MAX_SEED = 2**64 - 1
MAX_SIZE = 16384
_INTERRUPT_SECONDS = 0.02
PNG_METADATA = {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"}


@dataclass(frozen=True)
class Latent:
    """An image before decoding: its size in pixels and the key that its picture is drawn from."""

    width: int
    height: int
    batch_size: int
    key: str = ""


def node_classes(installation: Installation) -> dict[str, NodeClass]:
    """All node classes of a server, by name.

    Raises:
        ValueError: the server is to lack a class that there is none of.
    """
    classes = (
        *_STATIC_CLASSES,
        *model_loaders(installation),
        _ksampler(installation),
        *loaders(installation.folders),
    )
    known = {node_class.name: node_class for node_class in classes}
    if unknown := installation.without_nodes - known.keys():
        raise ValueError(f"no such node classes: {', '.join(sorted(unknown))}")
    return {name: known[name] for name in known if name not in installation.without_nodes}


async def _render_bars(call: Call) -> Result:
    inputs = call.inputs
    steps, mode = inputs["steps"], inputs["mode"]
    for step in range(steps):
        await call.installation.pace.step(inputs["seconds"] / steps)
        call.progress(step + 1, steps)
        if step == steps // 2 and mode == "error":
            raise ValueError("bars: deliberate node failure")
        if step == steps // 2 and mode == "oom":
            raise OutOfMemoryError("bars: deliberate out of memory")
    size = inputs["width"], inputs["height"], inputs["batch_size"]
    return Result((await asyncio.to_thread(rendering.bars, str(inputs["seed"]), *size),))


async def _fail_the_server(call: Call) -> Result:
    """What a workflow can do to its server: `hang` does not even hear an interrupt."""
    match call.inputs["fault"]:
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hang":
            await asyncio.Event().wait()
        case "hang_interruptible":
            while True:
                call.check()
                await asyncio.sleep(_INTERRUPT_SECONDS)
    return Result((call.inputs["images"],))


async def _encode_text(call: Call) -> Result:
    return Result((call.inputs["text"],))


async def _empty_latent(call: Call) -> Result:
    inputs = call.inputs
    return Result((Latent(inputs["width"], inputs["height"], inputs["batch_size"]),))


async def _sample(call: Call) -> Result:
    steps = call.inputs["steps"]
    for step in range(steps):
        await call.installation.pace.step(call.installation.step_seconds)
        call.progress(step + 1, steps)
    latent: Latent = call.inputs["latent_image"]
    settings = {name: value for name, value in call.inputs.items() if name != "latent_image"}
    return Result((replace(latent, key=json.dumps([latent.key, settings], sort_keys=True)),))


async def _decode(call: Call) -> Result:
    latent: Latent = call.inputs["samples"]
    size = latent.width, latent.height, latent.batch_size
    return Result((await asyncio.to_thread(rendering.gradients, latent.key, *size),))


async def _empty_image(call: Call) -> Result:
    inputs = call.inputs
    size = inputs["width"], inputs["height"], inputs["batch_size"]
    return Result((await asyncio.to_thread(rendering.plain, inputs["color"], *size),))


async def _invert(call: Call) -> Result:
    images = call.inputs["image"]
    return Result((await asyncio.to_thread(lambda: tuple(map(ImageOps.invert, images))),))


async def _save_images(call: Call) -> Result:
    return await asyncio.to_thread(_write_pngs, call, call.inputs["filename_prefix"], "output")


async def _preview_images(call: Call) -> Result:
    prefix = "ComfyUI_temp_" + "".join(choice(ascii_lowercase) for _ in range(5))
    return await asyncio.to_thread(_write_pngs, call, prefix, "temp")


async def _save_animation(call: Call) -> Result:
    return await asyncio.to_thread(_write_webp, call)


async def _preview_any(call: Call) -> Result:
    source = call.inputs["source"]
    try:
        text = json.dumps(source) if isinstance(source, dict | list | tuple) else str(source)
    except TypeError:
        text = str(source)
    return Result(ui={"text": [text]})


def _write_pngs(call: Call, prefix: str, kind: str) -> Result:
    series = open_series(call.installation.folders.directory / kind, prefix)
    metadata = rendering.png_metadata(call.prompt, call.extra_pnginfo)
    shown = []
    for index, image in enumerate(call.inputs["images"]):
        name = series.name(index, "png")
        rendering.save_png(image, series.folder / name, metadata)
        shown.append(_shown(series, name, kind))
    return Result(ui={"images": shown})


def _write_webp(call: Call) -> Result:
    inputs = call.inputs
    folder = call.installation.folders.directory / "output"
    series = open_series(folder, inputs["filename_prefix"])
    name = series.name(0, "webp")
    rendering.save_animation(
        inputs["images"],
        series.folder / name,
        fps=inputs["fps"],
        lossless=inputs["lossless"],
        quality=inputs["quality"],
        metadata=rendering.webp_metadata(call.prompt, call.extra_pnginfo),
    )
    shown = [_shown(series, name, "output")]
    return Result(ui={"images": shown, "animated": [len(inputs["images"]) > 1]})


def _shown(series: Series, name: str, kind: str) -> dict[str, str]:
    return {"filename": name, "subfolder": series.subfolder, "type": kind}


def _ksampler(installation: Installation) -> NodeClass:
    cfg = {"default": 8.0, "min": 0.0, "max": 100.0, "step": 0.1, "round": 0.01}
    return NodeClass(
        name="KSampler",
        display_name="KSampler",
        category="sampling",
        description="Takes the time of its steps; the picture depends on all of its inputs.",
        inputs=lambda: {
            "model": ["MODEL", {}],
            "seed": [
                "INT",
                {"default": 0, "min": 0, "max": MAX_SEED, "control_after_generate": True},
            ],
            "steps": ["INT", {"default": 20, "min": 1, "max": 10000}],
            "cfg": ["FLOAT", cfg],
            "sampler_name": [list(installation.version.samplers), {}],
            "scheduler": [list(SCHEDULERS), {}],
            "positive": ["CONDITIONING", {}],
            "negative": ["CONDITIONING", {}],
            "latent_image": ["LATENT", {}],
            "denoise": ["FLOAT", {"default": 1.0, "min": 0.0, "max": 1.0, "step": 0.01}],
        },
        run=_sample,
        outputs=("LATENT",),
    )


_STATIC_CLASSES = (
    NodeClass(
        name="BarsRender",
        display_name="Bars (test render)",
        category="image",
        description="Renders colour bars in the time it is told, or fails as it is told.",
        inputs=lambda: {
            "seed": ["INT", {"default": 0, "min": 0, "max": MAX_SEED}],
            "seconds": ["FLOAT", {"default": 1.0, "min": 0.0, "max": 3600.0}],
            "steps": ["INT", {"default": 10, "min": 1, "max": 10000}],
            "width": ["INT", {"default": 256, "min": 8, "max": 8192}],
            "height": ["INT", {"default": 256, "min": 8, "max": 8192}],
            "batch_size": ["INT", {"default": 1, "min": 1, "max": 64}],
            "mode": [["ok", "error", "oom"]],
        },
        run=_render_bars,
        outputs=("IMAGE",),
        python_module="custom_nodes.bars_render",
    ),
    NodeClass(
        # No real server has it.
        name="SandboxFault",
        display_name="Fault (sandbox only)",
        category="sandbox",
        description="Kills or hangs the server that executes it, or passes its pictures on.",
        inputs=lambda: {
            "images": ["IMAGE", {}],
            "fault": [["none", "die", "hang", "hang_interruptible"]],
        },
        run=_fail_the_server,
        outputs=("IMAGE",),
        python_module="sandbox",
    ),
    NodeClass(
        name="CLIPTextEncode",
        display_name="CLIP Text Encode (Prompt)",
        category="conditioning",
        description="Takes a text that the picture depends on.",
        inputs=lambda: {
            "text": ["STRING", {"multiline": True, "dynamicPrompts": True}],
            "clip": ["CLIP", {}],
        },
        run=_encode_text,
        outputs=("CONDITIONING",),
    ),
    NodeClass(
        name="EmptyLatentImage",
        display_name="Empty Latent Image",
        category="latent",
        description="Sets the size of the pictures and how many there are.",
        inputs=lambda: {
            "width": ["INT", {"default": 512, "min": 16, "max": MAX_SIZE, "step": 8}],
            "height": ["INT", {"default": 512, "min": 16, "max": MAX_SIZE, "step": 8}],
            "batch_size": ["INT", {"default": 1, "min": 1, "max": 4096}],
        },
        run=_empty_latent,
        outputs=("LATENT",),
    ),
    NodeClass(
        name="VAEDecode",
        display_name="VAE Decode",
        category="latent",
        description="Draws the pictures.",
        inputs=lambda: {"samples": ["LATENT", {}], "vae": ["VAE", {}]},
        run=_decode,
        outputs=("IMAGE",),
    ),
    NodeClass(
        name="EmptyImage",
        display_name="EmptyImage",
        category="image",
        description="Makes pictures of one colour.",
        inputs=lambda: {
            "width": ["INT", {"default": 512, "min": 1, "max": MAX_SIZE, "step": 1}],
            "height": ["INT", {"default": 512, "min": 1, "max": MAX_SIZE, "step": 1}],
            "batch_size": ["INT", {"default": 1, "min": 1, "max": 4096}],
            "color": [
                "INT",
                {"default": 0, "min": 0, "max": 0xFFFFFF, "step": 1, "display": "color"},
            ],
        },
        run=_empty_image,
        outputs=("IMAGE",),
    ),
    NodeClass(
        name="ImageInvert",
        display_name="Invert Image",
        category="image",
        description="Turns pictures into their negatives.",
        inputs=lambda: {"image": ["IMAGE"]},
        run=_invert,
        outputs=("IMAGE",),
    ),
    NodeClass(
        name="SaveImage",
        display_name="Save Image",
        category="image",
        description="Writes pictures into the output folder, with the prompt inside.",
        inputs=lambda: {
            "images": ["IMAGE", {}],
            "filename_prefix": ["STRING", {"default": "ComfyUI"}],
        },
        run=_save_images,
        output_node=True,
        hidden=PNG_METADATA,
    ),
    NodeClass(
        name="PreviewImage",
        display_name="Preview Image",
        category="image",
        description="Writes pictures into the temp folder.",
        inputs=lambda: {"images": ["IMAGE"]},
        run=_preview_images,
        output_node=True,
        hidden=PNG_METADATA,
    ),
    NodeClass(
        name="SaveAnimatedWEBP",
        display_name="SaveAnimatedWEBP",
        category="image/animation",
        description="Writes all pictures of a batch into one animated WebP.",
        inputs=lambda: {
            "images": ["IMAGE"],
            "filename_prefix": ["STRING", {"default": "ComfyUI"}],
            "fps": ["FLOAT", {"default": 6.0, "min": 0.01, "max": 1000.0, "step": 0.01}],
            "lossless": ["BOOLEAN", {"default": True}],
            "quality": ["INT", {"default": 80, "min": 0, "max": 100}],
            "method": [["default", "fastest", "slowest"]],
        },
        run=_save_animation,
        output_node=True,
        hidden=PNG_METADATA,
        python_module="comfy_extras.nodes_images",
    ),
    NodeClass(
        name="PreviewAny",
        display_name="Preview Any",
        category="utils",
        description="Shows any value as text.",
        inputs=lambda: {"source": ["*", {}]},
        run=_preview_any,
        output_node=True,
        python_module="comfy_extras.nodes_preview_any",
    ),
    SANDBOX_EXHIBIT,
)
