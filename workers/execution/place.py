"""Where a ComfyUI server is, seen from the whole fleet."""

import ipaddress
import socket
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

from settings.urls import canonical


@dataclass(frozen=True)
class Place:
    """A server's name for all workers, however its URL is spelled.

    A loopback address means another server on each host.
    """

    url: str
    host: str

    @classmethod
    def of(cls, url: str) -> Self:
        """The place of a server that this process reaches under a base URL."""
        return cls(url, socket.gethostname())

    @property
    def key(self) -> str:
        """The name."""
        return self._named(self.url)

    def reaches(self, key: str, url: str) -> bool:
        """Whether the URL leads from here to the server with that name."""
        return key == self._named(url)

    def _named(self, url: str) -> str:
        spelled = canonical(url)
        return f"{spelled} on {self.host}" if _is_loopback(spelled) else spelled


def _is_loopback(url: str) -> bool:
    name = urlsplit(url).hostname or ""
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")
    # Who connects to the unspecified address reaches itself, too.
    return address.is_loopback or address.is_unspecified
