"""The node classes that read files from the input folder, and what shows the masks they make."""

import asyncio
import mimetypes
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from sandbox.comfyui.files import Folders
from sandbox.comfyui.nodes import Call, InputConfig, Inputs, NodeClass, Result

_CHANNELS = {"red": "R", "green": "G", "blue": "B"}


@dataclass(frozen=True)
class Video:
    """A video that nothing has opened yet: real servers do not before somebody needs a frame."""

    path: Path


def loaders(folders: Folders) -> tuple[NodeClass, ...]:
    """All loaders of a server with these folders."""
    return (
        _loader(
            folders,
            name="LoadImage",
            display_name="Load Image",
            description="Reads a picture from the input folder.",
            config=lambda: [_names(folders, "image"), {"image_upload": True}],
            load=_load_image,
            outputs=("IMAGE", "MASK"),
        ),
        _loader(
            folders,
            name="LoadImageOutput",
            display_name="Load Image (from Outputs)",
            description="Reads a picture from the folder that the note of its name says.",
            config=lambda: ["COMBO", _OF_OUTPUTS],
            load=_load_image,
            outputs=("IMAGE", "MASK"),
        ),
        _loader(
            folders,
            name="LoadImageMask",
            display_name="Load Image (as Mask)",
            category="mask",
            description="Reads one channel of a picture.",
            config=lambda: [_names(folders), {"image_upload": True}],
            more={"channel": [["alpha", *_CHANNELS]]},
            load=_load_mask,
            outputs=("MASK",),
        ),
        _loader(
            folders,
            name="LoadAudio",
            display_name="Load Audio",
            category="audio",
            description="Reads the sound of a file.",
            media="audio",
            config=lambda: [_names(folders, "audio", "video"), {"audio_upload": True}],
            load=_load_audio,
            outputs=("AUDIO",),
            python_module="comfy_extras.nodes_audio",
        ),
        _loader(
            folders,
            name="LoadVideo",
            display_name="Load Video",
            category="image/video",
            description="Names a video.",
            input_name="file",
            media="video",
            config=lambda: [
                "COMBO",
                {"multiselect": False, "options": _names(folders, "video"), "video_upload": True},
            ],
            load=lambda path, _: Result((Video(path),)),
            outputs=("VIDEO",),
            python_module="comfy_extras.nodes_video",
        ),
        _MASK_TO_IMAGE,
    )


_OF_OUTPUTS = {
    "image_upload": True,
    "image_folder": "output",
    "remote": {
        "route": "/internal/files/output",
        "refresh_button": True,
        "control_after_refresh": "first",
    },
}


def _loader(
    folders: Folders,
    *,
    name: str,
    display_name: str,
    description: str,
    config: Callable[[], InputConfig],
    load: Callable[[Path, Inputs], Result],
    outputs: tuple[str, ...],
    category: str = "image",
    media: str = "image",
    input_name: str = "",
    more: dict[str, InputConfig] | None = None,
    python_module: str = "nodes",
) -> NodeClass:
    """A class whose first input names a file; only it says whether the file is there."""
    key = input_name or media

    def find(value: str) -> Path | None:
        file, folder = folders.annotated(value, "input")
        return folder / file if folder and (folder / file).is_file() else None

    def rejection(inputs: Inputs) -> tuple[str, str] | None:
        value = inputs[key]
        return None if find(value) else (key, f"Invalid {media} file: {value}")

    def fingerprint(inputs: Inputs) -> str:
        path = find(inputs[key])
        return sha256(path.read_bytes()).hexdigest() if path else ""

    async def run(call: Call) -> Result:
        path = find(call.inputs[key])
        if path is None:
            raise FileNotFoundError(call.inputs[key])
        return await asyncio.to_thread(load, path, call.inputs)

    return NodeClass(
        name=name,
        display_name=display_name,
        category=category,
        description=description,
        inputs=lambda: {key: config(), **(more or {})},
        run=run,
        outputs=outputs,
        python_module=python_module,
        rejection=rejection,
        fingerprint=fingerprint,
    )


def _names(folders: Folders, *media: str) -> list[str]:
    """The files that lie directly in the input folder: all, or those of these media by name."""
    paths = (path for path in (folders.directory / "input").iterdir() if path.is_file())
    kinds = {path.name: (mimetypes.guess_type(path.name)[0] or "") for path in paths}
    return sorted(n for n, kind in kinds.items() if not media or kind.partition("/")[0] in media)


def _load_image(path: Path, _: Inputs) -> Result:
    with Image.open(path) as opened:
        pixels = opened.convert("RGBA")
    mask = ImageOps.invert(pixels.getchannel("A"))
    return Result(((pixels.convert("RGB"),), (mask,)))


def _load_mask(path: Path, inputs: Inputs) -> Result:
    with Image.open(path) as opened:
        pixels = opened.convert("RGBA")
    if inputs["channel"] == "alpha":
        return Result(((ImageOps.invert(pixels.getchannel("A")),),))
    return Result(((pixels.getchannel(_CHANNELS[inputs["channel"]]),),))


def _load_audio(path: Path, _: Inputs) -> Result:
    try:
        with Image.open(path):
            raise ValueError("No audio stream found in the file.")
    except UnidentifiedImageError:
        content = path.read_bytes()
    return Result(({"waveform": sha256(content).hexdigest(), "sample_rate": 44100},))


async def _show_mask(call: Call) -> Result:
    return Result((tuple(mask.convert("RGB") for mask in call.inputs["mask"]),))


_MASK_TO_IMAGE = NodeClass(
    name="MaskToImage",
    display_name="Convert Mask to Image",
    category="mask",
    description="Shows masks as pictures.",
    inputs=lambda: {"mask": ["MASK"]},
    run=_show_mask,
    outputs=("IMAGE",),
    python_module="comfy_extras.nodes_mask",
)
