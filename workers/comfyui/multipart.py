"""A form with one file in it, sent as it is read: the HTTP library would hold all of it twice."""

import os
import uuid
from collections.abc import Iterator, Mapping
from typing import IO

from urllib3.filepost import encode_multipart_formdata

_PIECE_BYTES = 256 * 1024


class FileForm:
    """A body for `requests`, which sends what can be iterated piece by piece."""

    def __init__(
        self, field: str, filename: str, content: IO[bytes], fields: Mapping[str, str]
    ) -> None:
        """Read nothing yet.

        Args:
            field: the file's name in the form.
            filename: what the server is told.
            content: a file that can be rewound; it is sent from its beginning.
            fields: what else is in the form.
        """
        # Who knows no content beforehand can have no such line in it.
        mark = uuid.uuid4().hex.encode()
        form, self.content_type = encode_multipart_formdata(
            {**fields, field: (filename, mark, "application/octet-stream")}
        )
        self._head, _, self._tail = form.partition(mark)
        self._content = content
        content.seek(0, os.SEEK_END)
        self._size = content.tell()

    def __len__(self) -> int:
        return len(self._head) + self._size + len(self._tail)

    def __iter__(self) -> Iterator[bytes]:
        self._content.seek(0)
        yield self._head
        while piece := self._content.read(_PIECE_BYTES):
            yield piece
        yield self._tail
