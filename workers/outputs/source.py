"""A stream with sight of what comes next."""

from collections.abc import Iterator
from typing import Protocol

PIECE_BYTES = 1024 * 1024
# Each question to a server takes its time, however little it is for.
_AHEAD_BYTES = 64 * 1024


class Readable(Protocol):
    """A stream of bytes."""

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; nothing at the end."""


class Source:
    """A stream that is read once, in pieces, and can be looked ahead in."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._ahead = bytearray()
        self.ended_early = False
        """Whether fewer bytes came than a file said that it has."""

    def peek(self, size: int) -> bytes:
        """The next `size` bytes, fewer only at the end; they are still to be read."""
        while len(self._ahead) < size:
            part = self._stream.read(max(size - len(self._ahead), _AHEAD_BYTES))
            if not part:
                break
            self._ahead += part
        return bytes(self._ahead[:size])

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; nothing at the end."""
        if not self._ahead:
            return self._stream.read(size)
        part = bytes(self._ahead[:size])
        del self._ahead[:size]
        return part

    def pieces(self, size: int) -> Iterator[bytes]:
        """The next `size` bytes, in pieces."""
        while size > 0:
            part = self.read(min(size, PIECE_BYTES))
            if not part:
                self.ended_early = True
                return
            size -= len(part)
            yield part

    def zeros(self, size: int) -> Iterator[bytes]:
        """Zeros for each of the next `size` bytes, in pieces."""
        for part in self.pieces(size):
            yield bytes(len(part))

    def skip(self, size: int) -> None:
        """Leave the next `size` bytes out."""
        for _ in self.pieces(size):
            pass

    def rest(self) -> Iterator[bytes]:
        """All that is left, in pieces."""
        while part := self.read(PIECE_BYTES):
            yield part
