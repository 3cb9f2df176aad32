"""The HTTP server of metrics and health, and those who ask it badly."""

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from socketserver import ThreadingMixIn

import pytest
import requests

from sandbox.processes import free_ports
from workers.health.endpoint import MOST_OPEN, Endpoint, Page

pytestmark = pytest.mark.integration

SECONDS = 5.0


def broken(_accepted: str) -> Page:
    raise ValueError("s3cret")


@pytest.fixture
def port() -> int:
    return free_ports(1)[0]


@pytest.fixture
def endpoint(port: int) -> Iterator[Endpoint]:
    one = Endpoint("127.0.0.1", port)
    large = Page(200, "text/plain", b"x" * 10_000_000)
    one.show(
        {
            "/metrics": lambda accepted: Page(200, "text/plain", accepted.encode()),
            "/large": lambda _: large,
            "/broken": broken,
        }
    )
    yield one
    one.close()


def get(port: int, path: str, method: str = "GET") -> requests.Response:
    url = f"http://127.0.0.1:{port}{path}"
    return requests.request(method, url, timeout=SECONDS, headers={"Accept": "text/plain"})


@pytest.mark.usefixtures("endpoint")
def test_a_page_is_made_for_who_asks(port: int) -> None:
    assert get(port, "/metrics?x=1").text == "text/plain"
    assert get(port, "/metrics", "HEAD").headers["Content-Length"] == "10"
    assert (get(port, "/metrics", "HEAD").content, get(port, "/metrics", "POST").status_code) == (
        b"",
        501,
    )
    nothing = get(port, "/")
    assert (nothing.status_code, nothing.text) == (404, "there are /metrics, /large, /broken\n")


@pytest.mark.usefixtures("endpoint")
def test_a_page_that_fails_tells_nothing_of_why(
    port: int, caplog: pytest.LogCaptureFixture
) -> None:
    answer = get(port, "/broken")
    assert (answer.status_code, answer.text) == (500, "the worker's log says why\n")
    assert "a page cannot be made" in caplog.text


@pytest.mark.usefixtures("endpoint")
def test_those_who_say_nothing_and_those_who_do_not_read_hold_up_nobody(port: int) -> None:
    before = threading.active_count()
    with ExitStack() as held:
        for number in range(60):
            one = held.enter_context(socket.create_connection(("127.0.0.1", port), SECONDS))
            if number % 3 == 0:
                one.sendall(b"GET /large HTTP/1.0\r\n\r\n")
            if number % 3 == 1:
                one.sendall(b"GET /met")
        assert get(port, "/metrics").status_code == 200
        assert threading.active_count() - before <= MOST_OPEN + 2


@pytest.mark.usefixtures("endpoint")
def test_a_host_that_had_no_threads_left_is_answered_when_it_has(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as without:
        without.setattr(ThreadingMixIn, "process_request", start)
        for _ in range(40):
            with pytest.raises(requests.ConnectionError):
                get(port, "/metrics")
    assert get(port, "/metrics").status_code == 200


@pytest.mark.usefixtures("endpoint")
def test_a_port_belongs_to_one(port: int) -> None:
    with pytest.raises(OSError, match="Address already in use"):
        Endpoint("127.0.0.1", port)


def test_before_it_shows_anything_it_lets_wait(port: int) -> None:
    endpoint = Endpoint("127.0.0.1", port)
    answers: list[int] = []
    asking = threading.Thread(target=lambda: answers.append(get(port, "/livez").status_code))
    asking.start()
    endpoint.show({"/livez": lambda _: Page(200, "text/plain", b"")})
    asking.join(SECONDS)
    endpoint.close()
    assert answers == [200]


def test_it_listens_for_both_kinds_of_addresses(port: int) -> None:
    try:
        endpoint = Endpoint("::", port)
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    endpoint.show({"/livez": lambda _: Page(200, "text/plain", b"")})
    try:
        assert requests.get(f"http://[::1]:{port}/livez", timeout=SECONDS).status_code == 200
        assert get(port, "/livez").status_code == 200
    finally:
        endpoint.close()
