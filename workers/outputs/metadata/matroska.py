"""Matroska and WebM. An index in them tells where parts are: elements become void in place."""

from collections.abc import Iterator

from workers.outputs.metadata.model import Passing
from workers.outputs.source import Source

_SEGMENT, _INFO, _TRACKS, _TRACK = 0x18538067, 0x1549A966, 0x1654AE6B, 0xAE
_CLUSTER = 0x1F43B675
_VOID, _CHECKSUM = 0xEC, 0xBF
_TAGS, _ATTACHMENTS = 0x1254C367, 0x1941A469
_TITLE, _FILENAME, _TRACK_NAME = 0x7BA9, 0x7384, 0x536E
_OPENED = {_SEGMENT, _INFO, _TRACKS, _TRACK}
# A checksum of what has changed would be wrong; what is void may be what was metadata before.
_VOIDED = {_TAGS, _ATTACHMENTS, _TITLE, _FILENAME, _TRACK_NAME, _CHECKSUM, _VOID}
_HEADER_BYTES = 12
# What a large element that is void begins with; of one that is cut there may be less.
_VOID_BYTES = 9


def strip_matroska(source: Source) -> Passing:
    """Make tags, attachments, title and names void."""
    while head := source.peek(_HEADER_BYTES):
        id_bytes = _length(head, 4)
        size_bytes = _length(head[id_bytes:], 8)
        start = id_bytes + size_bytes
        if not id_bytes or not size_bytes or len(head) < start:
            return False
        element = int.from_bytes(head[:id_bytes])
        ones = (1 << 7 * size_bytes) - 1
        size = int.from_bytes(head[id_bytes:start]) & ones
        if element in _OPENED or (element == _CLUSTER and size == ones):
            # What is in it comes next.
            yield source.read(start)
        elif size == ones:
            # It goes on for as long as it does.
            return False
        elif element in _VOIDED and len(head) >= min(start + size, _VOID_BYTES):
            yield from _void(source, start + size)
        else:
            yield from source.pieces(start + size)
    return True


def _length(number: bytes, most: int) -> int:
    """Bytes of a number, which its first bits tell; 0 if there is none."""
    length = 9 - number[0].bit_length() if number else 0
    return length if length <= most else 0


def _void(source: Source, size: int) -> Iterator[bytes]:
    if size >= _VOID_BYTES:
        head = bytes([_VOID, 1]) + (size - _VOID_BYTES).to_bytes(7)
    else:
        head = bytes([_VOID, 0x80 | size - 2])
    source.skip(len(head))
    yield head
    yield from source.zeros(size - len(head))
