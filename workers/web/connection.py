"""A connection to exactly those addresses that were checked."""

import socket
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from ipaddress import ip_address
from typing import Any

import urllib3

from workers.web.addresses import Address
from workers.web.deadline import Deadline
from workers.web.target import Target


def resolve(host: str) -> list[Address]:
    """All addresses of a name, in the system's order.

    Raises:
        OSError: there are none, or nobody knows.
    """
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(ip_address(str(place[0])) for *_, place in found))


def dial(addresses: Sequence[Address], port: int, deadline: Deadline) -> socket.socket:
    """Connect to the first of the addresses that answers; each has its share of the time.

    Returns:
        A socket without a timeout of its own: the deadline cuts it.

    Raises:
        OSError: none did.
    """
    *others, last = addresses
    for number, address in enumerate(others):
        with suppress(OSError):
            return _connected(address, port, deadline.left() / (len(addresses) - number))
    return _connected(last, port, deadline.left())


def _connected(address: Address, port: int, seconds: float) -> socket.socket:
    connected = socket.create_connection((str(address), port), timeout=seconds)
    connected.settimeout(None)
    return connected


class _Plain(urllib3.connection.HTTPConnection):
    """HTTP over a socket that is connected already, so that no name is resolved again."""

    dialled: socket.socket
    path: str

    def _new_conn(self) -> socket.socket:
        return self.dialled

    def putrequest(self, method: str, url: str, *args: Any, **options: Any) -> None:  # noqa: ARG002
        """Begin a request, for the target's path whatever the URL is."""
        # The URL that it is given the library logs, with its query, if it cannot read a header.
        super().putrequest(method, self.path, *args, **options)


class _Tls(_Plain, urllib3.connection.HTTPSConnection):
    """The same with TLS, for the name of the host and with its certificate."""


def over(
    connected: socket.socket, target: Target, tls: Callable[[], ssl.SSLContext]
) -> urllib3.connection.HTTPConnection:
    """Speak HTTP with a target over a socket; what is requested is its path."""
    connection = (
        _Tls(target.host, target.port, ssl_context=tls())
        if target.scheme == "https"
        else _Plain(target.host, target.port)
    )
    connection.dialled, connection.path = connected, target.path
    return connection
