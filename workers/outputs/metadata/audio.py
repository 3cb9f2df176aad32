"""FLAC and MP3."""

from workers.outputs.metadata.model import Passing
from workers.outputs.source import PIECE_BYTES, Source

# Facts on the stream, points to seek to, tracks.
_FLAC_KEPT = {0, 3, 5}
_PADDING, _NO_BLOCK, _LAST = 1, 127, 0x80

_HAS_FOOTER = 0x10
_ID3V1_BYTES = 128
_APE_FOOTER_BYTES = 32
_APE_HAS_HEADER = 1 << 31


def strip_flac(source: Source) -> Passing:
    """Make comments, pictures and application data padding."""
    yield from source.pieces(4)
    while len(head := source.peek(4)) == 4:
        last, kind, size = head[0] & _LAST, head[0] & ~_LAST, int.from_bytes(head[1:])
        if kind == _NO_BLOCK:
            return False
        if kind in _FLAC_KEPT:
            yield from source.pieces(4 + size)
        else:
            source.skip(4)
            yield bytes([last | _PADDING]) + head[1:]
            yield from source.zeros(size)
        if last:
            yield from source.rest()
            return True
    return False


def strip_mp3(source: Source) -> Passing:
    """Blank the tag before the sound, and leave out those behind it."""
    while (head := source.peek(10)).startswith(b"ID3"):
        if len(head) < 10 or max(head[6:]) > 0x7F:
            return False
        size = sum(byte << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
        if head[5] & _HAS_FOOTER:
            size += 10
        source.skip(10)
        # Without flags: there is neither another header in it nor a footer.
        yield head[:5] + b"\0" + bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))
        yield from source.zeros(size)
    if not _is_frame(source.peek(2)):
        return False
    while len(source.peek(2 * PIECE_BYTES)) == 2 * PIECE_BYTES:
        yield from source.pieces(PIECE_BYTES)
    end = source.peek(2 * PIECE_BYTES)
    source.skip(len(end))
    sound, is_clean = _without_tags(end)
    yield sound
    return is_clean


def _is_frame(head: bytes) -> bool:
    return len(head) == 2 and head[0] == 0xFF and head[1] >= 0xE0


def _without_tags(end: bytes) -> tuple[bytes, bool]:
    """The end of a file without the tags that may stand there, and whether all of them are out."""
    if end[-_ID3V1_BYTES:].startswith(b"TAG"):
        end = end[:-_ID3V1_BYTES]
    footer = end[-_APE_FOOTER_BYTES:]
    if not footer.startswith(b"APETAGEX"):
        return end, True
    size = int.from_bytes(footer[12:16], "little")
    if int.from_bytes(footer[20:24], "little") & _APE_HAS_HEADER:
        size += _APE_FOOTER_BYTES
    return (end[:-size], True) if _APE_FOOTER_BYTES <= size <= len(end) else (end, False)
