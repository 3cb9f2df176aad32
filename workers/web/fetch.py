"""Fetching what a URL names, wherever it leads, within limits of place, time and redirects."""

import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import urllib3

from workers.web.addresses import Address, OpenHosts
from workers.web.connection import dial, over, resolve
from workers.web.deadline import Deadline
from workers.web.errors import UnusableError, WebError
from workers.web.seam import translated
from workers.web.target import Target, check, read_url, redirected

_MOST_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_PIECE_BYTES = 256 * 1024
# Unasked, as some hosts do; each is undone as it comes.
_PLAIN = ("", "identity")
_ENCODINGS = (*_PLAIN, "gzip", "x-gzip", "deflate")

Resolve = Callable[[str], list[Address]]


@dataclass(frozen=True)
class Answer:
    """What a URL named.

    Attributes:
        pieces: its bytes as they come; raises WebError.
        length: how many there will be, where the host says so.
        etag: of exactly these bytes, or nothing.
        changed: whether it is something else than what had the tag that was given.
    """

    pieces: Iterator[bytes]
    length: int | None = None
    etag: str = ""
    changed: bool = True


@dataclass(frozen=True)
class Reply:
    """How a host answered what it was sent; of the answer no more is read.

    Attributes:
        status: HTTP's.
        retry_after: what its header of this name says, or nothing.
    """

    status: int
    retry_after: str = ""


_UNCHANGED = Answer(iter(()), changed=False)


class Web:
    """Hosts, as far as jobs may lead to them. Thread-safe; keeps no connection.

    Neither the environment's proxies nor its stored passwords have a part in it. Of what one host
    says another is told nothing, such as a cookie, but the tag that the caller gives.
    """

    def __init__(
        self,
        *,
        opened: OpenHosts,
        timeout: float,
        tls: Callable[[], ssl.SSLContext],
        resolve: Resolve = resolve,
    ) -> None:
        """Prepare; nothing is opened.

        Args:
            opened: what the operator opens beside the public internet.
            timeout: seconds for one URL, from its name to its last byte.
            tls: whose certificates are believed; they take megabytes, and so are asked for late.
            resolve: the addresses of a name.
        """
        self._opened = opened
        self._timeout = timeout
        self._tls = tls
        self._resolve = resolve

    @contextmanager
    def get(self, url: str, etag: str = "") -> Iterator[Answer]:
        """Ask for what a URL names.

        Args:
            url: `https://`, or `http://` where the operator opens it.
            etag: of what is known already.

        Raises:
            UnusableError: the URL is none, leads where jobs may not go, or nothing is there.
            WebError: there was no answer in time, or one that asks to come again.
        """
        deadline = Deadline(self._timeout)
        target = read_url(url)
        # Smaller is not worth a bomb.
        headers = {"Accept-Encoding": "identity", **({"If-None-Match": etag} if etag else {})}
        for _ in range(_MOST_REDIRECTS + 1):
            with self._asked("GET", target, headers, deadline) as response:
                if response.status not in _REDIRECTS:
                    known = bool(etag) and response.status == 304
                    yield _UNCHANGED if known else _answer(response, target, deadline)
                    return
                location = response.headers.get("Location", "")
            try:
                target = redirected(target, location)
            except UnusableError as error:
                raise UnusableError(f"is redirected to a URL that {error}") from None
        raise UnusableError(f"is redirected more than {_MOST_REDIRECTS} times")

    def post(self, url: str, content: bytes, headers: Mapping[str, str]) -> Reply:
        """Send JSON to where a URL leads, and not to where that redirects.

        Args:
            url: as for `get`.
            content: the JSON.
            headers: sent with it.

        Raises:
            UnusableError: the URL is none, or leads where jobs may not go.
            WebError: there was no answer in time.
        """
        deadline = Deadline(self._timeout)
        target = read_url(url)
        sent = {**headers, "Content-Type": "application/json"}
        with self._asked("POST", target, sent, deadline, content) as response:
            return Reply(response.status, response.headers.get("Retry-After", ""))

    @contextmanager
    def _asked(
        self,
        method: str,
        target: Target,
        headers: Mapping[str, str],
        deadline: Deadline,
        content: bytes | None = None,
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        addresses = self._addresses(target, deadline)
        check(target, addresses, self._opened)
        sent = {"User-Agent": "comfyfleet", "Accept": "*/*", **headers}
        with ExitStack() as ends:
            with translated(target.host):
                connected = dial(addresses, target.port, deadline)
            ends.callback(connected.close)
            ends.enter_context(deadline.cutting(connected))
            connection = over(connected, target, self._tls)
            ends.callback(connection.close)
            with translated(target.host):
                connection.request(
                    method,
                    "/",
                    body=content,
                    headers=sent,
                    preload_content=False,
                    decode_content=True,
                )
                response = connection.getresponse()
            ends.callback(response.close)
            yield response

    def _addresses(self, target: Target, deadline: Deadline) -> list[Address]:
        if target.address is not None:
            return [target.address]
        with translated(target.host):
            return deadline.wait_for(lambda: self._resolve(target.host))


def _answer(response: urllib3.BaseHTTPResponse, target: Target, deadline: Deadline) -> Answer:
    status, host = response.status, target.host
    etag = response.headers.get("ETag", "")
    # A weak one is also that of other bytes.
    etag = etag if etag.startswith('"') and etag.isprintable() else ""
    if status == 429 or status >= 500:
        raise WebError(f"is not to be had: {host} answered {status}")
    if status != 200:
        raise UnusableError(f"is not to be had: {host} answered {status}")
    encoding = response.headers.get("Content-Encoding", "").lower()
    if encoding not in _ENCODINGS:
        raise UnusableError(f"is compressed in an unknown way by {host}")
    # The library's own reading of it, which is that of what comes: nothing that is compressed.
    length = response.length_remaining if encoding in _PLAIN else None
    return Answer(_pieces(response, host, deadline), length, etag)


def _pieces(response: urllib3.BaseHTTPResponse, host: str, deadline: Deadline) -> Iterator[bytes]:
    while True:
        deadline.left()
        with translated(host):
            piece = response.read1(_PIECE_BYTES, decode_content=True)
        if not piece:
            return
        yield piece
