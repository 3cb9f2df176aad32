"""Small pictures of pictures. Pillow is loaded with the first: not every worker needs it."""

import threading
from dataclasses import dataclass
from io import BytesIO
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

# Bytes that a picture may need while it is decoded, and how many a pixel takes: of WebP the decoder
# has two pictures of its own.
_MOST_BYTES = 256 * 1024 * 1024
_PIXEL_BYTES = 8
_WEBP_PIXEL_BYTES = 16
# A JPEG may draw the same picture again and again, in a few bytes each time.
_MOST_SCANS = 100
_JPEG, _SCAN = b"\xff\xd8\xff", b"\xff\xda"
_PIECE_BYTES = 1024 * 1024
_QUALITY = 80
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF")

# One picture is decoded at a time, so that a worker needs memory for one.
_decoding = threading.Lock()


class NoThumbnailError(Exception):
    """A picture is to have none; says why."""


@dataclass(frozen=True)
class Thumbnail:
    """A small picture, as WebP, and its size in pixels."""

    content: bytes
    width: int
    height: int


def is_picture(head: bytes) -> bool:
    """Whether a file that starts with these bytes, 12 of them, is a picture that can have one."""
    return head.startswith((b"\x89PNG", _JPEG, b"GIF8")) or (
        head.startswith(b"RIFF") and head[8:12] == b"WEBP"
    )


def make_thumbnail(file: IO[bytes], longest: int) -> Thumbnail:
    """Draw a picture, the first of an animation, no larger than it is.

    Args:
        file: an open PNG, JPEG, WebP or GIF.
        longest: pixels of its longer side at most.

    Raises:
        NoThumbnailError: the file cannot be read, or takes too much memory or time.
    """
    from PIL import Image  # noqa: PLC0415  # not before it is needed

    with _decoding:
        try:
            _check_scans(file)
            file.seek(0)
            with Image.open(file, formats=_FORMATS) as picture:
                return _encoded(_small(picture, longest), _profile(picture))
        except NoThumbnailError:
            raise
        except Exception as error:
            # Decoders raise what they like at files that are no good.
            raise NoThumbnailError(f"it cannot be read ({type(error).__name__})") from error


def _check_scans(file: IO[bytes]) -> None:
    if file.read(len(_JPEG)) != _JPEG:
        return
    # In data the mark of a scan does not occur.
    scans = sum(piece.count(_SCAN) for piece in iter(lambda: file.read(_PIECE_BYTES), b""))
    if scans > _MOST_SCANS:
        raise NoThumbnailError(f"it is a JPEG of more than {_MOST_SCANS} scans")


def _small(picture: "Image", longest: int) -> "Image":
    from PIL import Image, ImageOps  # noqa: PLC0415

    most_pixels = _MOST_BYTES // (_WEBP_PIXEL_BYTES if picture.format == "WEBP" else _PIXEL_BYTES)
    if picture.width * picture.height > most_pixels:
        raise NoThumbnailError(
            f"it has {picture.width} x {picture.height} pixels, more than {most_pixels:,}"
        )
    # A JPEG is read no larger than it has to be.
    picture.draft("RGB", (longest, longest))
    is_deep = picture.mode.startswith("I")
    colours = "RGBA" if picture.has_transparency_data else "RGB"
    small = picture.convert("I" if is_deep else colours)
    # There is memory for two, and premultiplying takes another one.
    picture.close()
    small.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    if is_deep:
        # 16 bits a pixel, of which the upper 8 are shown.
        small = small.point(lambda value: value * (1 / 256)).convert("L").convert("RGB")
    return ImageOps.exif_transpose(small)


def _profile(picture: "Image") -> bytes:
    """What its colours mean, which is no metadata; none for others than red, green and blue."""
    profile = picture.info.get("icc_profile") if picture.mode in ("RGB", "RGBA", "P") else None
    return profile or b""


def _encoded(small: "Image", profile: bytes) -> Thumbnail:
    buffer = BytesIO()
    small.save(buffer, "WEBP", quality=_QUALITY, icc_profile=profile, exif=b"", xmp=b"")
    return Thumbnail(buffer.getvalue(), small.width, small.height)
