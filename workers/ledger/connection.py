"""The one place where a URL becomes a client of Redis, or a pool of connections to it."""

import socket
import threading
import weakref
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import (
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)

from settings.redis_urls import Sentinels, is_sentinel, read_sentinels

# Seconds to wait for a server's answer, or for a connection.
_SECONDS = 5.0
# The same for a sentinel: there are others to ask.
_SENTINEL_SECONDS = 2.0


# All of this process: who learns of a new master tells the others.
_POOLS: "weakref.WeakSet[MasterPool]" = weakref.WeakSet()
_POOLS_LOCK = threading.Lock()


class MasterPool(SentinelConnectionPool):
    """Connections to whichever server is the master.

    None of a process goes to a new master while another one still goes to the former: what a job's
    steps write would be in either of them, and one forgets it.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)  # type: ignore[no-untyped-call]
        # Others may call another master by the same name. The list is reordered as they answer.
        self.known_by = frozenset(
            (told["host"], told["port"])
            for told in (
                one.connection_pool.connection_kwargs for one in self.sentinel_manager.sentinels
            )
        )
        # Whom connections ask where the master is.
        self.connection_kwargs["connection_pool"] = weakref.proxy(self)
        with _POOLS_LOCK:
            _POOLS.add(self)

    def close(self) -> None:
        """Close all connections, those to sentinels too."""
        super().close()
        self.sentinel_manager.close()

    def get_master_address(self) -> tuple[str, int]:
        """Ask the sentinels for the master; no connection of this process stays with another."""
        address: tuple[str, int] = super().get_master_address()  # type: ignore[no-untyped-call]
        with _POOLS_LOCK:
            pools = [pool for pool in _POOLS if pool.has_master_of(self)]
        for pool in pools:
            pool.break_others(address)
        return address

    def has_master_of(self, other: "MasterPool") -> bool:
        """Whether both ask for the same master: by one name, of sentinels that both know."""
        return self.service_name == other.service_name and not self.known_by.isdisjoint(
            other.known_by
        )

    def break_others(self, master: tuple[str, int]) -> None:
        """Break all connections to other servers; from any thread.

        A former master that is frozen, or cut off, does not break them by itself.
        """
        with self._lock:
            connections = (*self._available_connections, *self._in_use_connections)
        for connection in connections:
            # Whoever waits for an answer learns that there is none, and closes it.
            if (connection.host, connection.port) != master and (
                opened := connection._sock  # noqa: SLF001
            ):
                # Not that of TLS, after which others would send what they have to say in the open.
                with suppress(OSError):
                    socket.socket.shutdown(opened, socket.SHUT_RDWR)


def connect(url: str, **options: Any) -> redis.Redis:
    """A client of a Redis server; nothing is opened before its first command.

    Args:
        url: `redis://` or `rediss://`, or of sentinels, as `settings.redis_urls.for_our_client`
            makes it: then it is of whichever server is the master.
        options: of `redis.Redis`; by default nothing waits for longer than 5 s.
    """
    options = {
        "socket_timeout": _SECONDS,
        "socket_connect_timeout": _SECONDS,
        # Whoever asks decides about asking again.
        "retry": Retry(NoBackoff(), 1),
        **options,
    }
    if not is_sentinel(url):
        return redis.Redis.from_url(url, **options)
    return redis.Redis.from_pool(_master_pool(read_sentinels(url), options))


def master_pool(
    addresses: Iterable[tuple[str, int]],
    master_name: str,
    *,
    sentinel_options: Mapping[str, Any],
    options: Mapping[str, Any],
) -> MasterPool:
    """Connections to the server that the first sentinel to answer calls the master.

    Args:
        addresses: host and port of each sentinel.
        master_name: under which they know it.
        sentinel_options: of clients of the sentinels.
        options: of connections to the server.
    """
    sentinel = Sentinel(  # type: ignore[no-untyped-call]
        list(addresses),
        sentinel_kwargs={
            "socket_timeout": _SENTINEL_SECONDS,
            "socket_connect_timeout": _SENTINEL_SECONDS,
            # The next one is asked instead.
            "retry": Retry(NoBackoff(), 0),
            **sentinel_options,
        },
    )
    return MasterPool(master_name, sentinel, **options)


def _master_pool(told: Sentinels, options: Mapping[str, Any]) -> MasterPool:
    credentials = {"username": told.sentinel_username, "password": told.sentinel_password}
    connection = SentinelManagedSSLConnection if told.tls else SentinelManagedConnection
    return master_pool(
        told.addresses,
        told.master_name,
        sentinel_options={**credentials, **({"ssl": True, **told.tls} if told.tls else {})},
        options={
            **told.tls,
            "connection_class": connection,
            "username": told.username,
            "password": told.password,
            "db": told.database,
            **options,
        },
    )
