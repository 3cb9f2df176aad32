"""A file of whatever format, without its metadata."""

from collections.abc import Mapping

from workers.outputs.metadata.audio import strip_flac, strip_mp3
from workers.outputs.metadata.gif import strip_gif
from workers.outputs.metadata.headers import strip_glb, strip_safetensors
from workers.outputs.metadata.jpeg import strip_jpeg
from workers.outputs.metadata.matroska import strip_matroska
from workers.outputs.metadata.model import Filter, Passing
from workers.outputs.metadata.mp4 import strip_mp4
from workers.outputs.metadata.ogg import strip_ogg
from workers.outputs.metadata.png import strip_png
from workers.outputs.metadata.riff import strip_wav, strip_webp
from workers.outputs.source import Readable, Source

_HEAD_BYTES = 16
_ENOUGH_BYTES = 64 * 1024

_BY_START: Mapping[bytes, Filter] = {
    b"\x89PNG": strip_png,
    b"GIF8": strip_gif,
    b"\x1aE\xdf\xa3": strip_matroska,
    b"fLaC": strip_flac,
    b"OggS": strip_ogg,
    b"glTF": strip_glb,
}
_IN_RIFF: Mapping[bytes, Filter] = {b"WEBP": strip_webp, b"WAVE": strip_wav}


class Stripping:
    """A stream without the metadata of the file in it. Reading raises what the stream raises."""

    def __init__(self, stream: Readable) -> None:
        self._pieces = self._strip(Source(stream))
        self._ready = bytearray()
        self.complete = False
        """Once all is read: whether no metadata is left in what was read."""

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; nothing at the end."""
        # Who collects parts of a few bytes each, as some files have, needs many times their size.
        while len(self._ready) < min(size, _ENOUGH_BYTES):
            piece = next(self._pieces, None)
            if piece is None:
                break
            self._ready += piece
        part = bytes(self._ready[:size])
        del self._ready[:size]
        return part

    def _strip(self, source: Source) -> Passing:
        strip = _filter_for(source.peek(_HEAD_BYTES))
        done = strip is not None and (yield from strip(source))
        # What hangs on behind a file may be anything.
        clean = done and not source.ended_early and not source.peek(1)
        yield from source.rest()
        self.complete = clean
        return clean


def _filter_for(head: bytes) -> Filter | None:
    """The filter of the format that starts with these bytes, if there is one."""
    fixed = _BY_START.get(head[:4]) or (_IN_RIFF.get(head[8:12]) if head[:4] == b"RIFF" else None)
    if fixed is not None:
        return fixed
    told = (
        (head[4:8] == b"ftyp", strip_mp4),
        (head[:3] == b"\xff\xd8\xff", strip_jpeg),
        (head[:3] == b"ID3" or _is_mp3_frame(head), strip_mp3),
        (head[8:9] == b"{", strip_safetensors),
    )
    return next((strip for is_it, strip in told if is_it), None)


def _is_mp3_frame(head: bytes) -> bool:
    return len(head) > 1 and head[0] == 0xFF and head[1] & 0xE6 == 0xE2
