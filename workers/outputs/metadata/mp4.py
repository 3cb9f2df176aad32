"""MP4, MOV and their kin. Tables in them tell where in the file data is: boxes are blanked."""

from workers.outputs.metadata.model import Passing
from workers.outputs.source import Source

# What has boxes to look at, each in its own place.
_FILE = b""
_INSIDE = {_FILE: b"moov", b"moov": b"trak", b"trak": b"mdia"}
# Also what was metadata before somebody else has blanked it.
_BLANKED = {b"udta", b"meta", b"uuid", b"free", b"skip"}
# Pictures: what is metadata elsewhere is the picture there.
_PICTURES = {b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1"}
_MOST_BRANDS_BYTES = 4096


def strip_mp4(source: Source) -> Passing:
    """Blank the boxes with user data and metadata, of the file and of its tracks."""
    size = int.from_bytes(source.peek(4))
    brands = source.peek(min(size, _MOST_BRANDS_BYTES))[8:]
    if _PICTURES.intersection(brands[at : at + 4] for at in range(0, len(brands), 4)):
        return False
    while head := source.peek(16):
        size, start = _sizes(head)
        kind = head[4:8]
        if size == 0 and kind not in (*_BLANKED, _INSIDE[_FILE]):
            # It goes on to the end of the file.
            yield from source.rest()
        elif size < start or not (yield from _box(source, _FILE)):
            return False
    return True


def _box(source: Source, around: bytes) -> Passing:
    head = source.peek(16)
    size, start = _sizes(head)
    kind = head[4:8]
    if kind == _INSIDE.get(around):
        yield source.read(start)
        return (yield from _boxes(source, kind, size - start))
    if kind in _BLANKED:
        source.skip(start)
        yield head[:4] + b"free" + head[8:start]
        yield from source.zeros(size - start)
    else:
        yield from source.pieces(size)
    return True


def _boxes(source: Source, around: bytes, room: int) -> Passing:
    while room > 0:
        size, start = _sizes(source.peek(16))
        if not start <= size <= room or not (yield from _box(source, around)):
            return False
        room -= size
    return True


def _sizes(head: bytes) -> tuple[int, int]:
    """Bytes of a box, and of its own head; the first is less if there is no box."""
    size, start = int.from_bytes(head[:4]), 8
    if size == 1:
        size, start = int.from_bytes(head[8:16]), 16
    return (size, start) if len(head) >= start else (-1, start)
