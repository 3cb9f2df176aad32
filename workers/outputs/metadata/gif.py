"""GIF: extensions that no picture needs are left out."""

from collections.abc import Iterator

from workers.outputs.metadata.model import Passing
from workers.outputs.source import Source

_TEXT, _CONTROL, _APPLICATION = 0x01, 0xF9, 0xFF
# How often it is played, and colours.
_KEPT = (b"NETSCAPE2.0", b"ANIMEXTS1.0", b"ICCRGBG1012")


def strip_gif(source: Source) -> Passing:
    """Leave out comments, and what applications have put in."""
    screen = source.peek(13)
    yield from source.pieces(13 + _palette_bytes(screen[10:11]))
    while head := source.peek(14):
        match head[0]:
            case 0x3B:
                yield source.read(1)
                return True
            case 0x2C:
                # Place and size, colours, and a byte that tells how the rest is packed.
                yield from source.pieces(11 + _palette_bytes(head[9:10]))
                yield from _blocks(source)
            case 0x21 if _is_kept(head):
                yield from source.pieces(2)
                yield from _blocks(source)
            case 0x21:
                source.skip(2)
                for _ in _blocks(source):
                    pass
            case _:
                return False
    return False


def _palette_bytes(flags: bytes) -> int:
    return 3 << (flags[0] & 7) + 1 if flags and flags[0] & 0x80 else 0


def _is_kept(head: bytes) -> bool:
    label = head[1] if len(head) > 1 else 0
    return label in (_TEXT, _CONTROL) or (label == _APPLICATION and head[3:14] in _KEPT)


def _blocks(source: Source) -> Iterator[bytes]:
    while size := source.peek(1):
        yield from source.pieces(1 + size[0])
        if size == b"\0":
            return
    source.ended_early = True
