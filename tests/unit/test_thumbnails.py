"""Small pictures of pictures of every form."""

import subprocess
import sys
from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest
from PIL import Image, ImageCms

from tests.recordings import recorded_outputs
from workers.outputs import thumbnails
from workers.outputs.thumbnails import NoThumbnailError, Thumbnail, is_picture, make_thumbnail

RED, GREEN, BLUE = (220, 20, 20), (20, 200, 20), (20, 20, 220)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def made(content: bytes, longest: int = 32) -> Image.Image:
    thumbnail = make_thumbnail(BytesIO(content), longest)
    image = Image.open(BytesIO(thumbnail.content))
    image.load()
    assert image.format == "WEBP"
    assert image.size == (thumbnail.width, thumbnail.height)
    return image


def halves(mode: str = "RGB", size: tuple[int, int] = (128, 64)) -> Image.Image:
    """Red on the left, green on the right."""
    image = Image.new("RGB", size, RED)
    image.paste(GREEN, (size[0] // 2, 0, *size))
    return image.convert(mode)


def is_near(pixel: Any, colour: tuple[int, ...]) -> bool:
    return all(abs(one - other) < 30 for one, other in zip(pixel, colour, strict=True))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_the_longer_side_has_so_many_pixels_and_the_form_stays(kind: str) -> None:
    small = made(encoded(halves(), kind))
    assert (small.size, small.mode) == ((32, 16), "RGB")
    assert is_near(small.getpixel((4, 8)), RED)
    assert is_near(small.getpixel((28, 8)), GREEN)


@pytest.mark.parametrize(("size", "expected"), [((10, 20), (10, 20)), ((2000, 1), (32, 1))])
def test_it_is_no_larger_than_the_picture(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert made(encoded(Image.new("RGB", size))).size == expected


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_transparency_is_kept(kind: str) -> None:
    image = halves("RGBA")
    image.paste((0, 0, 0, 0), (64, 0, 128, 64))
    options = {"lossless": True} if kind == "WEBP" else {}
    small = made(encoded(image, kind, **options))
    assert small.mode == "RGBA"
    assert small.getpixel((4, 8))[3] == 255
    assert small.getpixel((28, 8))[3] == 0


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_palette_has_its_colours_and_its_transparent_one(kind: str) -> None:
    image = halves().quantize(2)
    assert is_near(made(encoded(image, kind)).getpixel((4, 8)), RED)
    transparent = made(encoded(image, kind, transparency=image.getpixel((120, 8))))
    assert transparent.getpixel((28, 8))[3] == 0
    assert transparent.getpixel((4, 8))[3] == 255


@pytest.mark.parametrize("level", [0, 0x4000, 0x8000, 0xFFFF])
def test_of_sixteen_bits_the_upper_ones_are_shown(level: int) -> None:
    image = Image.new("I;16", (64, 64), level)
    shown = made(encoded(image)).getpixel((8, 8))
    assert is_near(shown, (level >> 8,) * 3)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "CMYK"])
def test_pictures_of_any_mode_have_one(mode: str) -> None:
    image = Image.new(mode, (64, 48), 0)
    assert made(encoded(image, "JPEG" if mode == "CMYK" else "PNG")).size == (32, 24)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_picture_is_seen_as_it_is_meant_to_be(kind: str) -> None:
    exif = Image.Exif()
    # Turned to the right: the left is above then.
    exif[0x0112] = 6
    small = made(encoded(halves(), kind, exif=exif))
    assert small.size == (16, 32)
    assert is_near(small.getpixel((8, 4)), RED)
    assert is_near(small.getpixel((8, 28)), GREEN)


@pytest.mark.parametrize("kind", ["WEBP", "GIF", "PNG"])
def test_of_an_animation_the_first_picture_is_shown(kind: str) -> None:
    frames = [Image.new("RGB", (64, 64), colour) for colour in (RED, BLUE)]
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    small = made(content)
    assert getattr(small, "n_frames", 1) == 1
    assert is_near(small.getpixel((8, 8))[:3], RED)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_metadata_does_not_come_along_but_colours_do(kind: str) -> None:
    exif = Image.Exif()
    exif[0x010F] = "a secret workflow"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    options: dict[str, Any] = {"exif": exif, "icc_profile": profile}
    if kind != "PNG":
        options["xmp"] = b"a secret workflow"
    thumbnail = make_thumbnail(BytesIO(encoded(halves(), kind, **options)), 32)
    assert b"secret" not in thumbnail.content
    info = Image.open(BytesIO(thumbnail.content)).info
    assert info["icc_profile"] == profile
    assert not {"exif", "xmp"} & info.keys()


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_a_profile_of_other_colours_does_not_come_along(mode: str) -> None:
    content = encoded(Image.new(mode, (64, 48)), "JPEG", icc_profile=b"not of RGB")
    assert "icc_profile" not in made(content).info


@pytest.mark.parametrize("name", ["SaveImage", "SaveAnimatedPNG", "SaveAnimatedWEBP"])
def test_the_pictures_of_a_real_server_have_one_without_the_workflow(name: str) -> None:
    _, content = recorded_outputs()[name]
    small = make_thumbnail(BytesIO(content), 16)
    assert (small.width, small.height) == (16, 16)
    assert b"SECRETWORKFLOW" not in small.content


def test_the_same_picture_has_the_same_thumbnail() -> None:
    content = encoded(halves())
    assert made(content).tobytes() == made(content).tobytes()
    assert isinstance(make_thumbnail(BytesIO(content), 32), Thumbnail)


# Files that are no good


def huge() -> bytes:
    """A picture of a gigapixel in a few bytes."""
    head = bytearray(encoded(Image.new("1", (8, 8))))
    head[16:24] = (40_000).to_bytes(4) * 2
    return bytes(head)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: b"", "UnidentifiedImageError"),
        (lambda: b"\x89PNG\r\n\x1a\n", "UnidentifiedImageError"),
        (lambda: encoded(halves())[:60], "OSError|SyntaxError"),
        (lambda: encoded(halves(), "JPEG")[:300], "OSError"),
        (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n", "UnidentifiedImageError"),
        (huge, "DecompressionBomb|UnidentifiedImageError"),
    ],
    ids=["empty", "no more than a mark", "cut", "a cut JPEG", "none of the formats", "a bomb"],
)
def test_files_that_are_no_good_have_none(make: Callable[[], bytes], why: str) -> None:
    with pytest.raises(NoThumbnailError, match=why):
        make_thumbnail(BytesIO(make()), 32)


@pytest.mark.parametrize(("kind", "bytes_a_pixel"), [("PNG", 8), ("JPEG", 8), ("WEBP", 16)])
def test_more_pixels_than_a_worker_has_memory_for_are_not_decoded(
    monkeypatch: pytest.MonkeyPatch, kind: str, bytes_a_pixel: int
) -> None:
    monkeypatch.setattr(thumbnails, "_MOST_BYTES", 64 * 64 * bytes_a_pixel)
    assert made(encoded(Image.new("RGB", (64, 64)), kind)).size == (32, 32)
    with pytest.raises(NoThumbnailError, match="it has 65 x 64 pixels, more than 4,096"):
        make_thumbnail(BytesIO(encoded(Image.new("RGB", (65, 64)), kind)), 32)


def test_a_jpeg_that_draws_its_picture_again_and_again_is_not_decoded() -> None:
    content = encoded(halves(), "JPEG", progressive=True)
    start = content.rindex(b"\xff\xda")
    scan, end = content[start:-2], content[-2:]
    assert made(content[:-2] + scan * 80 + end).size == (32, 16)
    with pytest.raises(NoThumbnailError, match="a JPEG of more than 100 scans"):
        make_thumbnail(BytesIO(content[:-2] + scan * 100 + end), 32)


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (encoded(Image.new("L", (1, 1)))[:12], True),
        (encoded(Image.new("L", (1, 1)), "JPEG")[:12], True),
        (encoded(Image.new("L", (1, 1)), "GIF")[:12], True),
        (encoded(Image.new("L", (1, 1)), "WEBP")[:12], True),
        (b"RIFF\0\0\0\0WAVE", False),
        (b"\0\0\0\x20ftypisom", False),
        (b"", False),
    ],
)
def test_what_is_a_picture(head: bytes, expected: bool) -> None:
    assert is_picture(head) is expected


def test_a_worker_that_makes_none_does_not_load_pillow() -> None:
    loaded = "import sys, workers.bootstrap.parts, workers.task; print('PIL' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", loaded], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
