"""The proxy with plain sockets: what each end sees when it misbehaves."""

import gc
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from sandbox.proxy import Mode, TcpProxy


class Echo:
    """A server that answers each piece with the same bytes, and remembers what it got."""

    def __init__(self) -> None:
        self.heard = b""
        self.reset = 0
        self._ends: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                end, _ = self._listener.accept()
                self._ends.append(end)
                thread = threading.Thread(target=self._serve, args=[end])
                self._threads.append(thread)
                thread.start()

    def _serve(self, end: socket.socket) -> None:
        with end:
            try:
                while piece := end.recv(65536):
                    self.heard += piece
                    end.sendall(piece)
            except ConnectionError:
                self.reset += 1

    def stop_listening(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def close(self) -> None:
        self.stop_listening()
        for thread in self._threads:
            thread.join(5)
            assert not thread.is_alive()


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.close()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[TcpProxy]:
    with TcpProxy("127.0.0.1", echo.port) as one:
        yield one


def connect(proxy: TcpProxy) -> socket.socket:
    return socket.create_connection((proxy.host, proxy.port), timeout=5)


def read(end: socket.socket, count: int) -> bytes:
    got = b""
    while len(got) < count and (piece := end.recv(count - len(got))):
        got += piece
    return got


def ask(end: socket.socket, request: bytes = b"hello") -> bytes:
    end.sendall(request)
    return read(end, len(request))


def silent(end: socket.socket, seconds: float = 0.2) -> bool:
    end.settimeout(seconds)
    with pytest.raises(TimeoutError):
        end.recv(1)
    end.settimeout(5)
    return True


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_it_forwards_both_ways_and_every_byte(proxy: TcpProxy) -> None:
    sent = bytes(range(256)) * 8192
    with connect(proxy) as end:
        writer = threading.Thread(target=end.sendall, args=[sent])
        writer.start()
        assert read(end, len(sent)) == sent
        writer.join()
        end.shutdown(socket.SHUT_WR)
        assert end.recv(1) == b"", "the end of the requests ends the answers"


def test_delay_holds_every_piece(proxy: TcpProxy) -> None:
    with connect(proxy) as end:
        ask(end)
        proxy.set(Mode.DELAY, 0.2)
        start = time.monotonic()
        assert ask(end) == b"hello"
        assert time.monotonic() - start >= 0.4, "the request and the answer"
        # Longer than anybody here waits for an answer.
        proxy.set(Mode.DELAY, 60)
        proxy.set(Mode.PASS)
        assert ask(end) == b"hello"


def test_cut_resets_what_is_open_and_serves_what_comes(echo: Echo, proxy: TcpProxy) -> None:
    with connect(proxy) as first, connect(proxy) as second, connect(proxy) as third:
        ask(first)
        ask(second)
        proxy.cut()
        for end in (first, second):
            with pytest.raises(ConnectionResetError):
                end.recv(1)
        eventually(lambda: echo.reset >= 2)
        third.settimeout(0.5)
    with connect(proxy) as again:
        assert ask(again) == b"hello"


def test_refuse_is_as_if_nobody_listened_and_the_port_is_kept(proxy: TcpProxy) -> None:
    port = proxy.port
    with connect(proxy) as end:
        ask(end)
        proxy.set(Mode.REFUSE)
        with pytest.raises(ConnectionResetError):
            end.recv(1)
    for _ in range(3):
        with pytest.raises(ConnectionRefusedError):
            connect(proxy)
    with pytest.raises(OSError, match="in use"), socket.socket() as thief:
        thief.bind((proxy.host, port))
    proxy.set(Mode.PASS)
    with connect(proxy) as end:
        assert ask(end) == b"hello"
    assert proxy.port == port


def test_blackhole_holds_what_comes_until_it_is_over(echo: Echo, proxy: TcpProxy) -> None:
    with connect(proxy) as old:
        ask(old)
        proxy.set(Mode.BLACKHOLE)
        with connect(proxy) as new:
            for end in (old, new):
                end.sendall(b"x")
                assert silent(end)
            assert echo.heard == b"hello"
            proxy.set(Mode.PASS)
            assert read(old, 1) == read(new, 1) == b"x"


def test_half_close_ends_the_answers_only(echo: Echo, proxy: TcpProxy) -> None:
    with connect(proxy) as old:
        ask(old)
        proxy.set(Mode.HALF_CLOSE)
        with connect(proxy) as new:
            for end in (old, new):
                assert end.recv(1) == b""
                end.sendall(b"still here")
            eventually(lambda: echo.heard.count(b"still here") == 2)


def test_corrupt_spoils_the_answers_and_not_the_requests(echo: Echo, proxy: TcpProxy) -> None:
    proxy.set(Mode.CORRUPT)
    with connect(proxy) as end:
        answer = ask(end, b"0123456789abcdef")
        assert len(answer) == 16
        assert answer[1:8] == b"1234567"
        assert answer[0] == ord("0") ^ 0xFF
        assert echo.heard == b"0123456789abcdef"
        proxy.set(Mode.PASS)
        assert ask(end) == b"hello"


def test_cut_after_so_many_bytes_of_an_answer_happens_once(proxy: TcpProxy) -> None:
    with connect(proxy) as end:
        ask(end, b"before it is ordered nothing counts")
        proxy.cut_after(7)
        assert ask(end) == b"hello"
        end.sendall(b"hello")
        assert read(end, 2) == b"he"
        with pytest.raises(ConnectionResetError):
            end.recv(1)
    with connect(proxy) as again:
        assert ask(again, b"0123456789") == b"0123456789"


def test_client_of_a_dead_target_is_reset(echo: Echo, proxy: TcpProxy) -> None:
    echo.stop_listening()
    # It may be told before it knows that it was connected.
    with pytest.raises(ConnectionResetError), connect(proxy) as end:
        end.recv(1)


def test_closing_leaves_no_thread_no_socket_and_no_warning(echo: Echo) -> None:
    def files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    # What other tests have left must not be taken for ours.
    gc.collect()
    before, threads = files(), threading.active_count()
    proxy = TcpProxy("127.0.0.1", echo.port)
    end = connect(proxy)
    ask(end)
    waiting = connect(proxy)
    proxy.set(Mode.BLACKHOLE)
    held = connect(proxy)
    proxy.close()
    proxy.close()
    for one in (end, waiting, held):
        one.close()
    eventually(lambda: threading.active_count() <= threads)
    gc.collect()
    eventually(lambda: files() <= before)
