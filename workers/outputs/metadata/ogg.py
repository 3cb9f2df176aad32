"""Ogg with Opus or Vorbis: the packet with the comments keeps its size, its pages get new sums."""

from collections.abc import Iterator
from typing import NamedTuple

from workers.outputs.metadata.model import Passing
from workers.outputs.source import Source

_HEADER_BYTES = 27
_SERIAL, _SUM = slice(14, 18), slice(22, 26)
_GENERATOR = 0x04C11DB7

# Of each codec how its comments begin, and what must stand behind them.
_CODECS = {b"OpusTags": b"", b"\x03vorbis": b"\x01"}
_COMMENTS = 1


class _Page(NamedTuple):
    head: bytes
    sizes: bytes
    body: bytes


def strip_ogg(source: Source) -> Passing:
    """Blank the comments."""
    serial, packet, has_begun = source.peek(18)[_SERIAL], 0, False
    while packet <= _COMMENTS:
        page = _peek(source)
        if page is None or page.head[_SERIAL] != serial:
            return False
        start, end, packet = _part(page, packet)
        if start < end:
            part = bytes(end - start) if has_begun else _no_comments(page.body[start:end])
            if part is None:
                return False
            has_begun = True
            page = page._replace(body=page.body[:start] + part + page.body[end:])
        source.skip(sum(map(len, page)))
        yield _summed(page)
    yield from source.rest()
    return True


def _peek(source: Source) -> _Page | None:
    head = source.peek(_HEADER_BYTES)
    if len(head) < _HEADER_BYTES or not head.startswith(b"OggS"):
        return None
    table = _HEADER_BYTES + head[-1]
    sizes = source.peek(table)[_HEADER_BYTES:]
    whole = source.peek(table + sum(sizes))
    return _Page(head, sizes, whole[table:]) if len(whole) == table + sum(sizes) else None


def _part(page: _Page, packet: int) -> tuple[int, int, int]:
    """Where in a page's body comments begin and end, and the packet that the next page is in."""
    at = start = end = 0
    for size in page.sizes:
        if packet == _COMMENTS:
            start = start if end else at
            end = at + size
        at += size
        # Only what is shorter than it may be ends a packet.
        packet += size < 255
    return start, end, packet


def _no_comments(part: bytes) -> bytes | None:
    """The first part of the packet with nothing after the vendor; None if it is no such packet."""
    for mark, behind in _CODECS.items():
        if part.startswith(mark):
            vendor = len(mark) + 4
            end = vendor + int.from_bytes(part[len(mark) : vendor], "little")
            kept = part[:end] + bytes(4) + behind
            return kept.ljust(len(part), b"\0") if len(kept) <= len(part) else None
    return None


def _summed(page: _Page) -> bytes:
    head = page.head[: _SUM.start] + bytes(4) + page.head[_SUM.stop :]
    total = 0
    for byte in head + page.sizes + page.body:
        total = (total << 8 & 0xFFFFFFFF) ^ _TABLE[total >> 24 ^ byte]
    return head[: _SUM.start] + total.to_bytes(4, "little") + head[_SUM.stop :] + b"".join(page[1:])


def _table() -> Iterator[int]:
    for byte in range(256):
        remainder = byte << 24
        for _ in range(8):
            remainder = (remainder << 1) ^ (_GENERATOR if remainder >> 31 else 0)
            remainder &= 0xFFFFFFFF
        yield remainder


_TABLE = tuple(_table())
