"""A worker that is asked to end before Celery listens for that."""

import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest

from settings import Settings
from workers.lifecycle.own_server import OwnServer

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


@pytest.fixture(autouse=True)
def _handlers_stay_as_they_were() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def swallowed() -> None:
    """As in a finalizer, which nothing that is raised gets out of."""
    with suppress(SystemExit):
        signal.raise_signal(signal.SIGTERM)


def taking(take: Callable[[Callable[[], None]], Any]) -> OwnServer:
    server = OwnServer(Settings(), None, lambda: None)
    server._pinning = SimpleNamespace(take=take)  # type: ignore[assignment]
    return server


def test_a_spare_ends_with_its_next_look() -> None:
    def take(on_vain: Callable[[], None]) -> Any:
        swallowed()
        on_vain()
        pytest.fail("it waits on")

    with pytest.raises(SystemExit) as ended:
        taking(take).take()
    assert ended.value.code == 0


def test_who_has_just_taken_a_server_ends_and_can_let_go_of_it() -> None:
    let_go: list[bool] = []
    pinned = SimpleNamespace(let_go=lambda: let_go.append(True))

    def take(_on_vain: Callable[[], None]) -> Any:
        swallowed()
        return "http://gpu", pinned

    server = taking(take)
    with pytest.raises(SystemExit):
        server.take()
    server.let_go()
    assert let_go == [True]


def test_it_is_not_forgotten_until_celery_listens() -> None:
    pinned = SimpleNamespace(start=lambda: None)
    server = taking(lambda _: ("http://gpu", pinned))
    assert server.take().comfyui_url == "http://gpu"
    server.check_end()
    swallowed()
    with pytest.raises(SystemExit):
        server.check_end()
