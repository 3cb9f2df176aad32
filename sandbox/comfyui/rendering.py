"""Pictures: cheap, pretty and the same for the same key."""

import json
from collections.abc import Mapping
from hashlib import shake_256
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

Batch = tuple[Image.Image, ...]

_GRID = 4
_PNG_COMPRESSION = 1
# Of EXIF.
_MODEL_TAG = 0x0110
_PREVIEW_FORMATS = ("webp", "jpeg")
_PREVIEW_QUALITY = 90


def gradients(key: str, width: int, height: int, batch_size: int) -> Batch:
    """Soft colour fields of `width` x `height` pixels: a few random colours, blown up smoothly."""
    return tuple(
        _colours(f"{key}#{index}", _GRID, _GRID).resize((width, height), Image.Resampling.BICUBIC)
        for index in range(batch_size)
    )


def bars(key: str, width: int, height: int, batch_size: int) -> Batch:
    """Eight vertical bars of random colours."""
    return tuple(
        _colours(f"{key}#{index}", 8, 1).resize((width, height), Image.Resampling.NEAREST)
        for index in range(batch_size)
    )


def plain(colour: int, width: int, height: int, batch_size: int) -> Batch:
    """Pictures of one colour, given as 0xRRGGBB."""
    rgb = (colour >> 16 & 255, colour >> 8 & 255, colour & 255)
    return (Image.new("RGB", (width, height), rgb),) * batch_size


def png_metadata(prompt: Any, extra_pnginfo: Mapping[str, Any] | None) -> PngInfo:
    """The texts that ComfyUI writes into a PNG: the prompt, and what the client sent along."""
    info = PngInfo()
    for name, value in {"prompt": prompt, **(extra_pnginfo or {})}.items():
        info.add_text(name, json.dumps(value))
    return info


def webp_metadata(prompt: Any, extra_pnginfo: Mapping[str, Any] | None) -> Image.Exif:
    """The same for a WebP: camera model and, before it, maker and so on, each with its name."""
    exif = Image.Exif()
    texts = {"prompt": prompt, **(extra_pnginfo or {})}
    for tag, (name, value) in zip(count(_MODEL_TAG, -1), texts.items(), strict=False):
        exif[tag] = f"{name}:{json.dumps(value)}"
    return exif


def save_png(image: Image.Image, path: Path, metadata: PngInfo) -> None:
    """Write one PNG."""
    image.save(path, "PNG", pnginfo=metadata, compress_level=_PNG_COMPRESSION)


def save_animation(
    images: Batch,
    path: Path,
    *,
    fps: float,
    lossless: bool,
    quality: int,
    metadata: Image.Exif,
) -> None:
    """Write one animated WebP of `fps` frames a second."""
    images[0].save(
        path,
        "WEBP",
        save_all=True,
        append_images=images[1:],
        duration=round(1000 / fps),
        lossless=lossless,
        quality=quality,
        method=0,
        exif=metadata,
    )


def preview(path: Path, spec: str) -> tuple[bytes, str]:
    """Encode an image file small, as `/view?preview=webp;50` asks.

    Returns:
        The bytes and their content type. An unknown format means WebP, no quality means 90.
    """
    name, _, quality = spec.partition(";")
    encoding = name if name in _PREVIEW_FORMATS else "webp"
    with Image.open(path) as image:
        shown = image.convert("RGB") if encoding == "jpeg" else image
        buffer = BytesIO()
        number = int(quality) if quality.isdigit() else _PREVIEW_QUALITY
        shown.save(buffer, encoding, quality=number)
    return buffer.getvalue(), f"image/{encoding}"


def channel(path: Path, name: str) -> bytes:
    """Encode only the colours (`rgb`) or only the transparency (`a`) of an image file, as PNG."""
    with Image.open(path) as image:
        pixels = image.convert("RGBA")
    shown = Image.new("RGBA", pixels.size)
    if name == "rgb":
        shown = pixels.convert("RGB")
    else:
        shown.putalpha(pixels.getchannel("A"))
    buffer = BytesIO()
    shown.save(buffer, "PNG")
    return buffer.getvalue()


def apply_mask(original: Path, mask: bytes, target: Path) -> None:
    """Write `original` as PNG to `target`, with the transparency of `mask`."""
    with Image.open(original) as image, Image.open(BytesIO(mask)) as cover:
        masked = image.convert("RGBA")
        masked.putalpha(cover.convert("RGBA").getchannel("A"))
    masked.save(target, "PNG")


def _colours(key: str, columns: int, rows: int) -> Image.Image:
    noise = shake_256(key.encode()).digest(3 * columns * rows)
    return Image.frombytes("RGB", (columns, rows), noise)
