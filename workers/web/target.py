"""Reading a URL: one spelling of each host, and nothing that two readers read differently."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from urllib.parse import quote, urljoin, urlsplit

import idna

from workers.web.addresses import Address, OpenHosts, is_public
from workers.web.errors import ForbiddenError, UnusableError

_PORTS = {"https": 443, "http": 80}
_MOST_CHARACTERS = 8192
_ASCII = "".join(map(chr, range(128)))
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
# As the last label: what resolvers and other readers take for a part of an address.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")


@dataclass(frozen=True)
class Target:
    """Where a URL leads.

    Attributes:
        scheme: `https` or `http`.
        host: a name in small ASCII letters without a dot at its end, or an address.
        port: the URL's or the scheme's own.
        path: with the query.
    """

    scheme: str
    host: str
    port: int
    path: str

    @property
    def url(self) -> str:
        """The URL, spelled in the one way."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"

    @property
    def address(self) -> Address | None:
        """The host, if it is an address."""
        return _address(self.host)


def read_url(url: str) -> Target:
    """Read a URL with which a job leads a worker somewhere.

    Raises:
        UnusableError: it is none, or not one that everybody reads in the same way.
    """
    if len(url) > _MOST_CHARACTERS:
        raise UnusableError(f"has more than {_MOST_CHARACTERS:,} characters")
    # The standard library drops tabs and line breaks; others do not.
    if not url.isprintable() or " " in url or "\\" in url:
        raise UnusableError("has a space, a backslash or a control character in it")
    try:
        parts = urlsplit(url)
        # Reading it raises as well.
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise UnusableError("is no valid URL") from None
    if parts.scheme not in _PORTS:
        raise UnusableError("is no https:// URL")
    if "@" in parts.netloc:
        raise UnusableError("has a user or a password in it, which are not sent")
    if port == 0:
        raise UnusableError("names port 0")
    if "[" in parts.netloc and ":" not in host:
        raise UnusableError("has a host that is no valid address")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    # As browsers send them; what is encoded already stays as it is.
    path = quote(path, safe=_ASCII)
    return Target(parts.scheme, _host(host), port or _PORTS[parts.scheme], path)


def redirected(target: Target, location: str) -> Target:
    """Where a redirect leads.

    Raises:
        UnusableError: as for any URL, and for one with another scheme.
    """
    if not location.isascii():
        raise UnusableError("has characters in it that are to be written as %XX")
    try:
        url = urljoin(target.url, location)
    except ValueError:
        raise UnusableError("is no valid URL") from None
    found = read_url(url)
    if found.scheme not in ("https", target.scheme):
        raise UnusableError(f"leads from {target.scheme} to {found.scheme}")
    return found


def check(target: Target, addresses: Sequence[Address], opened: OpenHosts) -> None:
    """Refuse a target that is neither public nor opened, by all addresses that it has.

    Raises:
        ForbiddenError: names the host, not its addresses: who may not go there need not know them.
    """
    if target.host in opened.names:
        return
    is_open = all(address in opened for address in addresses)
    if not all(is_public(address) or address in opened for address in addresses):
        raise ForbiddenError(f"leads to {target.host}, which is not a public address")
    if target.scheme == "http" and not is_open:
        raise ForbiddenError("is no https:// URL")


def _host(host: str) -> str:
    if ":" in host:
        # Only in brackets; a zone is no part of an address that others have.
        try:
            if "%" in host:
                raise AddressValueError
            return str(IPv6Address(host))
        except AddressValueError:
            raise UnusableError("has a host that is no valid address") from None
    try:
        # As browsers read it: digits and dots of all scripts become ASCII.
        name = idna.uts46_remap(host, std3_rules=False, transitional=False)
        name = name if name.isascii() else idna.encode(name).decode()
    except idna.IDNAError:
        raise UnusableError("has a host that is no valid name") from None
    name = name.removesuffix(".")
    if _address(name) is not None:
        return name
    *_, last = labels = name.split(".")
    if len(name) > 253 or not all(map(_LABEL.fullmatch, labels)) or _NUMBER.fullmatch(last):
        raise UnusableError("has a host that is neither a name nor an address of four numbers")
    return name


def _address(host: str) -> Address | None:
    try:
        return IPv6Address(host) if ":" in host else IPv4Address(host)
    except AddressValueError:
        return None
