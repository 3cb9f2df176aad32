"""The worker's one websocket to its ComfyUI server.

What arrives here wakes whoever waits for a prompt and feeds its progress. It decides nothing:
a lost message, or a socket that is dead for good, only makes waiting slower.
"""

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import websocket
from websocket import ABNF

from tasks.request import label
from workers.comfyui.progress import PromptProgress, fold

logger = logging.getLogger(__name__)

_PING_SECONDS = 10.0
_RECONNECT_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)


# Far more than any preview image.
MOST_MESSAGE_BYTES = 64 * 1024 * 1024


class _WebSocket(websocket.WebSocket):
    """A websocket that gives up on a message which does not end."""

    received = 0

    def _recv(self, bufsize: int) -> bytes:
        part: bytes = super()._recv(bufsize)  # type: ignore[no-untyped-call]
        self.received += len(part)
        if self.received > MOST_MESSAGE_BYTES:
            raise websocket.WebSocketPayloadException("a message has too many bytes")
        return part


OnOutput = Callable[[str, Mapping[str, Any]], None]


class Subscription:
    """What one waiter knows of its prompt."""

    def __init__(
        self, on_output: OnOutput, on_begun: Callable[[], None] = lambda: None, *, adopted: bool
    ) -> None:
        self.progress = PromptProgress()
        self.adopted = adopted
        self._on_output = on_output
        self._on_begun = on_begun
        self._hint = threading.Event()

    def wait(self, seconds: float) -> bool:
        """Wait for a hint that the prompt may have ended; whether there was one in time."""
        if not self._hint.wait(seconds):
            return False
        self._hint.clear()
        return True

    def receive(self, kind: str, data: Mapping[str, Any]) -> None:
        """Take a message about this prompt into account."""
        before = self.progress
        self.progress = fold(before, kind, data, time.monotonic())
        if self.progress.started and not before.started:
            self._on_begun()
        match kind, data:
            case "executed", {"node": str(node_id), "output": Mapping() as output}:
                self._on_output(node_id, output)
        if self.progress.finished:
            self._hint.set()

    def look(self) -> None:
        """Make the waiter look for itself: messages may have been missed."""
        self._hint.set()


class Notifications:
    """Listens on ComfyUI's websocket in a thread of its own and reconnects when it is cut."""

    def __init__(
        self,
        base_url: str,
        client_id: str,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float = 5.0,
        on_failure: Callable[[], None] = lambda: None,
        on_heard: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare the listener; `start` opens the connection.

        Args:
            base_url: of the ComfyUI server.
            client_id: ours; the server sends us messages about prompts submitted under it.
            headers: sent with the handshake.
            timeout: seconds to wait for a connection.
            on_failure: called from the listener's thread whenever the connection is cut or cannot
                be made.
            on_heard: called from the listener's thread with each message about a prompt.
        """
        self.client_id = client_id
        self._url = _websocket_url(base_url, client_id)
        self._headers = [f"{name}: {value}" for name, value in (headers or {}).items()]
        self._timeout = timeout
        self._on_failure = on_failure
        self._on_heard = on_heard
        # Two jobs of one id may both wait here until one of them learns of the other.
        self._subscriptions: list[tuple[str, Subscription]] = []
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._heard_at = self._connected_at = float("-inf")
        self._connected, self._cut = threading.Event(), threading.Event()
        self._cut.set()
        self._socket: _WebSocket | None = None
        self._thread = threading.Thread(target=self._run, name="comfyui-websocket", daemon=True)

    @property
    def connected(self) -> bool:
        """Whether messages arrive; without them waiting has to poll more often."""
        return self._connected.is_set()

    @property
    def heard_at(self) -> float:
        """When the last message about any prompt came; on the monotonic clock."""
        return self._heard_at

    def hear(self) -> None:
        """Take note that a prompt goes on, as somebody else may have heard."""
        self._heard_at = time.monotonic()
        self._on_heard()

    def held_since(self, moment: float) -> bool:
        """Whether one connection has lasted since then, on the monotonic clock."""
        return self.connected and self._connected_at <= moment

    def renew(self) -> None:
        """Have the connection made anew, as one may be open and deaf."""
        socket = self._socket
        # In good order: the server silences the new one if it notices the old one's end after it.
        if socket is not None and socket.connected:
            with suppress(OSError, websocket.WebSocketException):
                socket.send_close()

    def wait_connected(self, seconds: float) -> bool:
        """Wait until messages arrive; whether that came in time."""
        return self._connected.wait(seconds)

    def wait_cut(self, seconds: float) -> bool:
        """Wait until there is no connection; whether that came in time."""
        return self._cut.wait(seconds)

    def start(self) -> None:
        """Connect, now or as soon as the server can be reached."""
        self._thread.start()

    def stop(self) -> None:
        """Close the connection and end the thread."""
        self._stopping.set()
        socket = self._socket
        if socket is not None:
            with suppress(OSError):
                socket.abort()  # type: ignore[no-untyped-call]
        if self._thread.is_alive():
            self._thread.join()

    @contextmanager
    def subscribed(
        self,
        prompt_id: str,
        on_output: OnOutput = lambda _node_id, _output: None,
        on_begun: Callable[[], None] = lambda: None,
        *,
        adopted: bool = False,
    ) -> Iterator[Subscription]:
        """Follow one prompt; enter before it is submitted, so that no message is missed.

        Args:
            prompt_id: of the prompt.
            on_output: called from the listener's thread with a node's id and what it has put out,
                as soon as the node has executed; must not wait for anything.
            on_begun: called from that thread when the prompt has begun to execute; likewise.
            adopted: whether it was submitted before, so that its messages may go to somebody else.
        """
        entry = (prompt_id, Subscription(on_output, on_begun, adopted=adopted))
        with self._lock:
            self._subscriptions.append(entry)
        try:
            yield entry[1]
        finally:
            with self._lock:
                self._subscriptions.remove(entry)

    def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                self._socket = _WebSocket()
                self._socket.settimeout(self._timeout)
                # A redirect would carry our headers to somebody else.
                self._socket.connect(  # type: ignore[no-untyped-call]
                    self._url, header=self._headers, redirect_limit=0
                )
                self._listen(self._socket)
            except Exception as error:  # noqa: BLE001  # a dead thread would be deaf for good
                if not self._stopping.is_set() and failures in (0, len(_RECONNECT_SECONDS)):
                    # A refused handshake is told with all that the server answered.
                    reason = f"{type(error).__name__}: {label(str(error))}"
                    logger.warning("websocket to ComfyUI: %s; polling until it is back", reason)
            finally:
                self._connected.clear()
                self._cut.set()
                if self._socket is not None:
                    self._socket.shutdown()  # type: ignore[no-untyped-call]
                    self._socket = None
            if time.monotonic() - began > _PING_SECONDS:
                failures = 0
            if not self._stopping.is_set():
                self._on_failure()
            # Whatever was sent meanwhile is lost: everyone looks for himself.
            self._look(lambda _: True)
            delay = _RECONNECT_SECONDS[min(failures, len(_RECONNECT_SECONDS) - 1)]
            failures += 1
            self._stopping.wait(delay)

    def _listen(self, socket: _WebSocket) -> None:
        socket.settimeout(_PING_SECONDS)
        self._connected_at = time.monotonic()
        self._cut.clear()
        self._connected.set()
        self._look(lambda _: True)
        silent = False
        while not self._stopping.is_set():
            try:
                opcode, frame = socket.recv_data_frame(control_frame=True)
            except websocket.WebSocketTimeoutException:
                if silent:
                    raise
                silent = True
                socket.ping()
                continue
            silent = False
            match opcode:
                case ABNF.OPCODE_CLOSE:
                    return
                case ABNF.OPCODE_BINARY:
                    # A preview image of what is executed.
                    socket.received = 0
                    self.hear()
                case ABNF.OPCODE_TEXT:
                    socket.received = 0
                    self._dispatch(frame.data)

    def _dispatch(self, text: bytes) -> None:
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            return
        match message:
            case {"type": "status"}:
                # Of a prompt that was submitted under another client id this is all we hear.
                self._look(lambda one: one.adopted and not one.progress.started)
            # Not every message names its prompt: after a reconnect the first `executing` does not,
            # nor do those that monitors and other extensions send, whatever becomes of the prompt.
            case {"type": str(kind), "data": {"prompt_id": str(prompt_id)} as data}:
                self.hear()
                with self._lock:
                    waiting = [s for id_, s in self._subscriptions if id_ == prompt_id]
                for subscription in waiting:
                    subscription.receive(kind, data)

    def _look(self, needs_to: Callable[[Subscription], bool]) -> None:
        with self._lock:
            for _, subscription in self._subscriptions:
                if needs_to(subscription):
                    subscription.look()


def _websocket_url(base_url: str, client_id: str) -> str:
    parts = urlsplit(base_url)
    scheme = "wss" if parts.scheme == "https" else "ws"
    query = f"clientId={quote(client_id, safe='')}"
    return urlunsplit((scheme, parts.netloc, f"{parts.path}/ws", query, ""))
