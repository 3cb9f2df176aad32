"""JPEG: segments that no picture needs are left out."""

import re
from collections.abc import Iterator

from workers.outputs.metadata.exif import MARK, is_turned, orientation_only
from workers.outputs.metadata.model import Passing
from workers.outputs.source import Source

_APP0, _APP1, _APP2, _APP14, _APP15, _COMMENT = 0xE0, 0xE1, 0xE2, 0xEE, 0xEF, 0xFE
_END, _SCAN = 0xD9, 0xDA
# Without a length: restarts and one that is for private use.
_BARE = {0x01, *range(0xD0, 0xD8)}
_PROFILE = b"ICC_PROFILE\0"
# In a scan any other pair is data.
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_LOOKED_AT = 64 * 1024


def strip_jpeg(source: Source) -> Passing:
    """Leave out comments and application data, but for colours and orientation."""
    yield source.read(2)
    while len(head := source.peek(4)) >= 2 and head[0] == 0xFF:
        marker = head[1]
        if marker == 0xFF:
            yield source.read(1)
        elif marker == _END:
            yield source.read(2)
            return True
        elif marker in _BARE:
            yield source.read(2)
        elif (size := int.from_bytes(head[2:4])) < 2:
            return False
        elif marker == _SCAN:
            yield from source.pieces(2 + size)
            yield from _scan(source)
        else:
            yield from _segment(source, marker, 2 + size)
    return False


def _segment(source: Source, marker: int, size: int) -> Iterator[bytes]:
    content = source.peek(size)
    if _is_kept(marker, content[4:]):
        yield from source.pieces(size)
        return
    source.skip(size)
    if marker == _APP1 and content[4:].startswith(MARK) and is_turned(content[4:]):
        exif = MARK + orientation_only(content[4:])
        yield content[:2] + (2 + len(exif)).to_bytes(2) + exif


def _is_kept(marker: int, content: bytes) -> bool:
    if _APP0 <= marker <= _APP15:
        return marker in (_APP0, _APP14) or (marker == _APP2 and content.startswith(_PROFILE))
    return marker != _COMMENT


def _scan(source: Source) -> Iterator[bytes]:
    """A picture's data, up to the next marker."""
    while data := source.peek(_LOOKED_AT):
        if (found := _MARKER.search(data)) is not None:
            yield source.read(found.start())
            return
        # The first half of a marker may end what was looked at.
        yield source.read(max(1, len(data) - data.endswith(b"\xff")))
