"""One output file's way into the store, read once."""

import tempfile
from contextlib import AbstractContextManager, suppress
from types import TracebackType
from typing import IO

from workers.outputs.metadata import Stripping
from workers.outputs.source import Readable, Source
from workers.outputs.thumbnails import NoThumbnailError, Thumbnail, is_picture, make_thumbnail

_MEBIBYTE = 1024 * 1024
# Bytes of a picture: more of it than this is no longer copied, and it gets no thumbnail.
MOST_COPIED_BYTES = 64 * _MEBIBYTE
# Of these so many are held in memory, the others in a file.
_IN_MEMORY_BYTES = 4 * _MEBIBYTE
_HEAD_BYTES = 12


class Passage(AbstractContextManager["Passage"]):
    """A file that is stripped of metadata and looked at as it passes, as far as that is asked for.

    Reading raises what the stream raises, and nothing else.
    """

    def __init__(self, stream: Readable, *, strip: bool, thumbnail: int | None) -> None:
        """Take the stream.

        Args:
            stream: the file.
            strip: whether metadata is to be left out.
            thumbnail: pixels of the longer side of the picture's thumbnail, or None for none.
        """
        self._stripping = Stripping(stream) if strip else None
        self._longest = thumbnail
        self._copying: _Copying | None = None
        self.stream: Readable = self._stripping or stream
        """The file as it is to be stored."""
        if thumbnail is not None:
            source = Source(self.stream)
            self.stream = source
            if is_picture(source.peek(_HEAD_BYTES)):
                self.stream = self._copying = _Copying(source)

    @property
    def stripped(self) -> bool | None:
        """Once all is read: whether no metadata is left; None if it was not to be left out."""
        return self._stripping.complete if self._stripping is not None else None

    def thumbnail(self) -> Thumbnail | None:
        """Once all is read: the picture, small; None if none is wanted or the file is no picture.

        Raises:
            NoThumbnailError: there is none to be had.
        """
        if self._copying is None or self._longest is None:
            return None
        return make_thumbnail(self._copying.whole(), self._longest)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._copying is not None:
            self._copying.close()


class _Copying:
    """A stream of which a copy is kept, unless it grows too large."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES)  # noqa: SIM115
        self._why_not = ""

    def read(self, size: int) -> bytes:
        part = self._stream.read(size)
        if not self._why_not:
            self._keep(part)
        return part

    def _keep(self, part: bytes) -> None:
        try:
            if self._file.tell() + len(part) > MOST_COPIED_BYTES:
                self._give_up(f"it has more than {MOST_COPIED_BYTES:,} bytes")
            else:
                self._file.write(part)
        except OSError as error:
            self._give_up(f"it cannot be copied: {error}")

    def _give_up(self, why: str) -> None:
        self._why_not = why
        self.close()

    def whole(self) -> IO[bytes]:
        """The copy, from its beginning."""
        if self._why_not:
            raise NoThumbnailError(self._why_not)
        try:
            # The last of it may be written only now.
            self._file.seek(0)
        except OSError as error:
            raise NoThumbnailError(f"it cannot be copied: {error}") from error
        return self._file

    def close(self) -> None:
        # What could not be written it tries to write once more.
        with suppress(OSError):
            self._file.close()
