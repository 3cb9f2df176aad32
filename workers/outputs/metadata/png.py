"""PNG and animated PNG: chunks that no picture needs are left out."""

from zlib import crc32

from workers.outputs.metadata.exif import READ_BYTES, is_turned, orientation_only
from workers.outputs.metadata.model import Passing
from workers.outputs.source import Source

_MOST_BYTES = 2**31 - 1

# Beside those that the format calls critical. ComfyUI has chunks of its own for the workflow.
_KEPT = {
    *(b"tRNS", b"cHRM", b"gAMA", b"iCCP", b"sBIT", b"sRGB", b"cICP", b"mDCV", b"cLLI"),
    *(b"bKGD", b"hIST", b"pHYs", b"sPLT", b"acTL", b"fcTL", b"fdAT"),
}


def strip_png(source: Source) -> Passing:
    """Leave out texts, times, EXIF and what is private."""
    yield from source.pieces(8)
    while len(head := source.peek(8)) == 8:
        size, kind = int.from_bytes(head[:4]), head[4:]
        if size > _MOST_BYTES or not kind.isalpha():
            return False
        if kind[:1].isupper() or kind in _KEPT:
            yield from source.pieces(size + 12)
        else:
            if kind == b"eXIf":
                yield _turned(source.peek(8 + min(size, READ_BYTES))[8:])
            source.skip(size + 12)
        if kind == b"IEND":
            return True
    return False


def _turned(exif: bytes) -> bytes:
    if not is_turned(exif):
        return b""
    content = b"eXIf" + orientation_only(exif)
    return (len(content) - 4).to_bytes(4) + content + crc32(content).to_bytes(4)
