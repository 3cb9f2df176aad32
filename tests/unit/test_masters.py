"""What becomes of connections and results when another server becomes the master; none is asked."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from workers.broker.results import SentinelBackend
from workers.ledger.connection import MasterPool, master_pool

FORMER, NEXT = ("a", 1), ("b", 2)


class Connection:
    """One that has a socket, and is connected to a server."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.host, self.port = address
        self._sock, self._other = socket.socketpair()

    @property
    def is_broken(self) -> bool:
        self._other.setblocking(False)
        try:
            return self._other.recv(1) == b""
        except BlockingIOError:
            return False

    def disconnect(self) -> None:
        self._sock.close()
        self._other.close()


def pool_of(
    name: str, *connections: Connection, sentinels: tuple[str, ...] = ("s1", "s2")
) -> MasterPool:
    addresses = [(host, 26379) for host in sentinels]
    pool = master_pool(addresses, name, sentinel_options={}, options={})
    pool._in_use_connections.update(connections)
    return pool


def test_who_learns_of_a_new_master_has_all_leave_the_former(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here, there = Connection(FORMER), Connection(FORMER)
    already, of_others = Connection(NEXT), Connection(FORMER)
    asking, own = pool_of("renders", here), pool_of("renders", there, already)
    others = pool_of("others", of_others)
    monkeypatch.setattr(asking.sentinel_manager, "discover_master", lambda _: NEXT)
    assert asking.get_master_address() == NEXT
    told = [one.is_broken for one in (here, there, already, of_others)]
    assert told == [True, True, False, False]
    for pool in (asking, own, others):
        pool.close()


def test_a_master_is_the_same_by_name_and_sentinels(monkeypatch: pytest.MonkeyPatch) -> None:
    # Broker and results may each have sentinels of their own, who know the master by one name.
    same, another = Connection(FORMER), Connection(FORMER)
    asking = pool_of("renders")
    own = pool_of("renders", same, sentinels=("s3", "s2"))
    others = pool_of("renders", another, sentinels=("s4", "s5"))
    monkeypatch.setattr(asking.sentinel_manager, "discover_master", lambda _: NEXT)
    asking.get_master_address()
    assert [one.is_broken for one in (same, another)] == [True, False]
    for pool in (asking, own, others):
        pool.close()


class Backend(SentinelBackend):
    """A backend whose master is asked by others."""

    def __init__(self, replicas: int, now: tuple[str, int]) -> None:
        self.replicas, self.now = replicas, now
        self.connection_pool = self
        self.master_address = FORMER
        self.asked: list[str] = []

    client = property(lambda self: self)

    def get_master_address(self) -> tuple[str, int]:
        return self.now

    @contextmanager
    def pipeline(self, *, transaction: bool) -> Iterator[Any]:
        assert not transaction
        yield self

    def eval(self, *_: Any) -> None:
        self.asked.append("eval")

    def wait(self, replicas: int, milliseconds: int) -> None:
        assert replicas == 1
        # The client gives up later.
        assert milliseconds < 5000
        self.asked.append("wait")

    def execute(self) -> list[int]:
        return [1, self.replicas]


@pytest.mark.parametrize(
    ("replicas", "now", "is_sure"),
    [(1, FORMER, True), (2, NEXT, True), (0, FORMER, True), (0, NEXT, False)],
)
def test_a_result_that_a_former_master_alone_has_is_stored_again(
    replicas: int, now: tuple[str, int], is_sure: bool
) -> None:
    backend = Backend(replicas, now)
    store = backend._evaluator("SUCCESS")
    if is_sure:
        store("script", 1, "key")
    else:
        with pytest.raises(RedisConnectionError, match="the master has changed"):
            store("script", 1, "key")
    # Both over one connection: Redis answers for what came over it.
    assert backend.asked == ["eval", "wait"]


def test_progress_waits_for_no_replica() -> None:
    backend = Backend(0, NEXT)
    backend._evaluator("PROGRESS")("script", 1, "key")
    assert backend.asked == ["eval"]
