"""A store before the store: it answers as some do that are not AWS, or have another clock."""

import threading
import time
from email.utils import formatdate
from enum import Enum, auto
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from sandbox.seaweedfs import ACCESS_KEY, REGION, SECRET_KEY

_CONDITION = "If-None-Match"
_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "date"}
_NOT_IMPLEMENTED = (
    b"<?xml version='1.0'?><Error><Code>NotImplemented</Code>"
    b"<Message>A header you provided implies functionality that is not implemented</Message>"
    b"</Error>"
)


class Conditions(Enum):
    """What the store does with a condition of a PUT."""

    TAKE = auto()
    IGNORE = auto()
    REFUSE = auto()
    """It answers 501, whatever the key has."""


class StoreProxy:
    """Forwards to a SeaweedFS of the sandbox, signed anew as headers may be left out."""

    def __init__(
        self, url: str, conditions: Conditions = Conditions.TAKE, clock_seconds: float = 0.0
    ) -> None:
        """Start to serve.

        Args:
            url: of the store.
            conditions: what becomes of those.
            clock_seconds: that its clock is ahead.
        """
        self.manifests = self.refused = 0
        self.hold_manifest = threading.Event()
        self.hold_manifest.set()
        self.held = threading.Event()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                is_manifest = self.command == "PUT" and self.path.endswith("manifest.json")
                if is_manifest:
                    proxy.held.set()
                    proxy.hold_manifest.wait(60)
                proxy._answer(self, body)
                proxy.manifests += is_manifest

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _serve  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self._target = urlsplit(url).netloc
        self._conditions = conditions
        self._clock_seconds = clock_seconds
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.hold_manifest.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, asked: BaseHTTPRequestHandler, body: bytes) -> None:
        headers = {name: value for name, value in asked.headers.items() if name.lower() != "host"}
        conditional = _CONDITION in asked.headers and asked.command == "PUT"
        if conditional and self._conditions is Conditions.REFUSE:
            self.refused += 1
            self._send(asked, 501, {"Content-Type": "application/xml"}, _NOT_IMPLEMENTED)
            return
        if conditional and self._conditions is Conditions.IGNORE:
            del headers[_CONDITION]
        signed = AWSRequest(asked.command, f"http://{self._target}{asked.path}", headers, body)
        S3SigV4Auth(Credentials(ACCESS_KEY, SECRET_KEY), "s3", REGION).add_auth(signed)
        connection = HTTPConnection(self._target, timeout=30)
        try:
            connection.request(asked.command, asked.path, body, dict(signed.headers.items()))
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        told = {n: v for n, v in answer.getheaders() if n.lower() not in _HOP}
        length = answer.headers["Content-Length"] if asked.command == "HEAD" else None
        self._send(asked, answer.status, told, content, length)

    def _send(
        self,
        asked: BaseHTTPRequestHandler,
        status: int,
        headers: dict[str, str],
        content: bytes,
        length: str | None = None,
    ) -> None:
        asked.send_response_only(status)
        for name, value in headers.items():
            asked.send_header(name, value)
        asked.send_header("Date", formatdate(time.time() + self._clock_seconds, usegmt=True))
        asked.send_header("Content-Length", length or str(len(content)))
        asked.end_headers()
        if asked.command != "HEAD":
            asked.wfile.write(content)
