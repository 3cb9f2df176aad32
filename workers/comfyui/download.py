"""A file on its way from the server."""

import time
from collections.abc import Callable

import requests

from tasks.errors import ComfyUIUnavailableError
from workers.comfyui.seam import translated

_PIECE_BYTES = 256 * 1024

# A file of which less than this comes in a second, after some time, is no file.
_SLOW_SECONDS = 30.0
_SLOW_BYTES = 1024


class Download:
    """A file's bytes, read from the server as they are needed."""

    def __init__(
        self, response: requests.Response, base_url: str, check: Callable[[], object]
    ) -> None:
        self._response = response
        self._base_url = base_url
        self._check = check
        self._began = time.monotonic()
        self._received = 0

    def read(self, size: int) -> bytes:
        """Some bytes, `size` at most; none only at the end.

        Raises:
            ComfyUIUnavailableError: the server stopped before the announced end, or is so slow
                that the end would never come.
            Exception: what the check raises.
        """
        self._check()
        with translated(self._base_url):
            # Whatever is there: who waits for more of it than comes waits for ever.
            part = bytes(self._response.raw.read1(min(size, _PIECE_BYTES), decode_content=True))
        self._received += len(part)
        seconds = time.monotonic() - self._began
        if part and seconds > _SLOW_SECONDS and self._received < seconds * _SLOW_BYTES:
            raise ComfyUIUnavailableError(
                f"ComfyUI at {self._base_url} sends a file with less than {_SLOW_BYTES} bytes/s"
            )
        return part
