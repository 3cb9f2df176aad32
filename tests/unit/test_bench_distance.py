"""The relay with plain sockets: what a request costs."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from bench.distance import Relay

SECONDS = 0.5
# In thirty pieces.
BODY = bytes(2_000_000)


@pytest.fixture
def store() -> Iterator[int]:
    """A store that asks for the body, and answers with very many bytes; its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        end, _ = listener.accept()
        with end, suppress(ConnectionError):
            while request := end.recv(65536):
                if b"Expect" in request:
                    end.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
                    end.recv(65536)
                end.sendall(BODY)

    thread = threading.Thread(target=serve)
    thread.start()
    yield listener.getsockname()[1]
    thread.join(5)
    listener.close()
    assert not thread.is_alive()


def test_a_request_takes_the_distance_longer_once(store: int) -> None:
    with Relay(f"http://127.0.0.1:{store}") as relay:
        address = ("127.0.0.1", int(relay.url.rpartition(":")[2]))
        with socket.create_connection(address, timeout=10) as client:
            for request in (b"GET / HTTP/1.1\r\n\r\n", b"PUT / HTTP/1.1\r\nExpect: 1\r\n\r\n"):
                # That the store is willing to have the body costs nothing.
                relay.seconds = 60.0 if b"Expect" in request else SECONDS
                began = time.monotonic()
                client.sendall(request)
                if b"Expect" in request:
                    assert client.recv(65536).startswith(b"HTTP/1.1 100")
                    relay.seconds = SECONDS
                    client.sendall(b"body")
                left = len(BODY)
                while left:
                    left -= len(client.recv(65536))
                # Its many pieces do not wait for each other.
                assert SECONDS <= time.monotonic() - began < 20 * SECONDS
        assert relay.requests == {"GET": 1, "PUT": 1}


def test_a_closed_relay_gives_its_port_back(store: int) -> None:
    relay = Relay(f"http://127.0.0.1:{store}")
    address = ("127.0.0.1", int(relay.url.rpartition(":")[2]))
    with socket.create_connection(address) as client:
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert client.recv(100)
        relay.close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)
