"""RIFF: WebP and WAV. Their sizes stand in front, so chunks are blanked where they are."""

from collections.abc import Iterator

from workers.outputs.metadata.exif import MARK, READ_BYTES, orientation_only
from workers.outputs.metadata.model import Passing
from workers.outputs.source import Source

# What every reader passes over.
_NOTHING = b"JUNK"
_WEBP = {b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF", b"ICCP"}
_WAV = {b"fmt ", b"fact", b"data", b"cue ", b"smpl"}
_FLAGS_AT = 8
_HAS_XMP = 0x04


def strip_webp(source: Source) -> Passing:
    """Blank XMP and what is unknown, and of EXIF all but the orientation."""
    return _strip(source, _WEBP)


def strip_wav(source: Source) -> Passing:
    """Blank all that is not sound."""
    return _strip(source, _WAV)


def _strip(source: Source, kept: set[bytes]) -> Passing:
    left = int.from_bytes(source.peek(8)[4:], "little") - 4
    yield from source.pieces(12)
    while left > 0:
        head = source.peek(8)
        size = int.from_bytes(head[4:], "little")
        padded = 8 + size + size % 2
        # Some writers leave out the last padding.
        if len(head) < 8 or padded > left + size % 2:
            return False
        yield from _chunk(source, kept, min(padded, left))
        left -= padded
    return True


def _chunk(source: Source, kept: set[bytes], size: int) -> Iterator[bytes]:
    kind = source.peek(4)
    if kind in kept:
        yield from source.pieces(size)
    elif kind == b"VP8X":
        head = bytearray(source.peek(min(size, _FLAGS_AT + 1)))
        source.skip(len(head))
        head[_FLAGS_AT:] = bytes(flags & ~_HAS_XMP for flags in head[_FLAGS_AT:])
        yield bytes(head)
        yield from source.pieces(size - len(head))
    else:
        yield from _blanked(source, kind, size)


def _blanked(source: Source, kind: bytes, size: int) -> Iterator[bytes]:
    head = source.peek(min(size, READ_BYTES))
    exif = orientation_only(head[8:])
    if head[8:].startswith(MARK):
        exif = MARK + exif
    # A header tells that there is EXIF: where there is room some stays.
    if kind == b"EXIF" and 8 + len(exif) <= len(head):
        start = head[:8] + exif
    else:
        start = _NOTHING + head[4:8]
    source.skip(len(start))
    yield start
    yield from source.zeros(size - len(start))
