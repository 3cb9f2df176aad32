"""A file on its way from ComfyUI: in the pieces that come, no longer than it is worth."""

from collections.abc import Callable
from io import BytesIO
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from requests.adapters import BaseAdapter
from urllib3 import HTTPResponse

from tasks.errors import ComfyUIUnavailableError, JobCancelledError
from workers.comfyui import ComfyUI
from workers.comfyui import download as module
from workers.comfyui.download import Download
from workers.comfyui.model import FileRef

PIECE = 256 * 1024


class Line:
    """Sends pieces, each after some seconds, on a clock of its own."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.pieces: list[tuple[float, bytes]] = []
        self.asked: list[int] = []

    def monotonic(self) -> float:
        return self.now

    def read1(self, size: int, *, decode_content: bool) -> bytes:
        assert decode_content
        self.asked.append(size)
        seconds, piece = self.pieces.pop(0) if self.pieces else (0.0, b"")
        self.now += seconds
        return piece

    def download(self, check: Callable[[], object] = lambda: None) -> Download:
        response: Any = SimpleNamespace(raw=self)
        return Download(response, "http://gpu", check)


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Line:
    one = Line()
    monkeypatch.setattr(module, "time", one)
    return one


def whole(download: Download, size: int = 8 * 1024 * 1024) -> bytes:
    content = b""
    while part := download.read(size):
        content += part
    return content


def test_what_is_there_is_had_at_once_and_in_pieces(line: Line) -> None:
    line.pieces = [(0.0, b"a"), (0.0, b"bc")]
    download = line.download()
    assert [download.read(5), download.read(2 * PIECE), download.read(1)] == [b"a", b"bc", b""]
    assert line.asked == [5, PIECE, 1]


def test_each_read_is_checked_first(line: Line) -> None:
    line.pieces = [(0.0, b"a"), (0.0, b"b")]
    reasons = iter([None, JobCancelledError("x")])

    def check() -> None:
        if reason := next(reasons):
            raise reason

    download = line.download(check)
    assert download.read(5) == b"a"
    with pytest.raises(JobCancelledError):
        download.read(5)
    # What is not wanted any more is not waited for either.
    assert line.asked == [5]


def test_a_file_that_trickles_is_given_up(line: Line) -> None:
    line.pieces = [(1.0, b"x" * 100)] * 1000
    with pytest.raises(ComfyUIUnavailableError, match="http://gpu sends a file with less than"):
        whole(line.download())
    assert line.now == 1031.0


def test_a_file_that_stops_to_come_is_given_up(line: Line) -> None:
    line.pieces = [(1.0, b"x" * PIECE), *[(20.0, b"x")] * 1000]
    with pytest.raises(ComfyUIUnavailableError):
        whole(line.download())
    # As soon as what has come is too little for the time that it took.
    assert line.now == pytest.approx(1000.0 + PIECE / 1024, abs=21.0)


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([(1.0, b"x" * 1100)] * 100, id="slowly but surely"),
        pytest.param([(29.0, b"x" * 10)], id="small, after a while"),
        pytest.param([(1.0, b"x" * 100)] * 30, id="not yet too long"),
        # Its end is no piece.
        pytest.param([(29.0, b"x"), (20.0, b"")], id="ended late"),
    ],
)
def test_a_file_that_comes_comes_whole(line: Line, pieces: list[tuple[float, bytes]]) -> None:
    line.pieces = list(pieces)
    assert whole(line.download()) == b"".join(piece for _, piece in pieces)


class Answering(BaseAdapter):
    """Answers with some bytes of as many as it announces."""

    def __init__(self, body: bytes, announced: int) -> None:
        super().__init__()
        self._body = body
        self._announced = announced

    def send(self, request: requests.PreparedRequest, **_: Any) -> requests.Response:  # type: ignore[override]
        response = requests.Response()
        response.status_code = 200
        response.url = request.url or ""
        response.raw = HTTPResponse(
            BytesIO(self._body),
            headers={"Content-Length": str(self._announced)},
            preload_content=False,
            request_method="GET",
        )
        return response

    def close(self) -> None:
        """Nothing is open."""


def viewed(body: bytes, announced: int, check: Callable[[], object] = lambda: None) -> bytes:
    with ComfyUI("http://gpu") as comfyui:
        comfyui._session.mount("http://", Answering(body, announced))
        with comfyui.view(FileRef("a", "", "output"), check) as download:
            return whole(download)


def test_a_file_is_viewed_to_its_announced_end() -> None:
    content = bytes(range(256)) * 3000
    assert viewed(content, len(content)) == content
    assert viewed(b"", 0) == b""


@pytest.mark.parametrize("body", [b"", b"x" * 1000])
def test_a_file_that_ends_before_is_none(body: bytes) -> None:
    with pytest.raises(ComfyUIUnavailableError, match="cut its answer short"):
        viewed(body, 1001)


def test_a_reason_to_end_ends_the_viewing() -> None:
    def check() -> None:
        raise JobCancelledError("x")

    with pytest.raises(JobCancelledError):
        viewed(b"x", 1, check)
