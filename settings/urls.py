"""URLs in variables."""

import ipaddress
from contextlib import suppress
from urllib.parse import urlsplit

_HTTP = {"http": 80, "https": 443}

# Under each of these a host reaches itself; under 127.0.0.2 it may reach another server.
_SELF = ("127.0.0.1", "localhost", "::1", "0.0.0.0", "::")  # noqa: S104  # nothing is bound


def http_url(value: str | None) -> str | None:
    """The URL of a service, without a slash at its end."""
    if value is None:
        return None
    try:
        parts = urlsplit(value)
        usable = parts.scheme in _HTTP and parts.hostname and parts.port != 0
        usable = usable and not parts.query and not parts.fragment
    except ValueError:
        usable = False
    if not usable:
        if _has_bare_ipv6(value):
            # Which of its parts is the port nobody can tell.
            raise ValueError("the IPv6 address in brackets, such as http://[fd00::1]:8188")
        raise ValueError("an http:// or https:// URL with a host, without query or fragment")
    return value.rstrip("/")


def _has_bare_ipv6(url: str) -> bool:
    host = url.partition("://")[2].partition("/")[0].rpartition("@")[2]
    return host.count(":") > 1 and not host.startswith("[")


def has_valid_port(url: str) -> bool:
    """Whether the port of a URL, if it has one, is one."""
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False


def canonical(url: str) -> str:
    """One spelling for all of the same server: of host, loopback and port."""
    parts = urlsplit(url)
    host = _canonical_host(parts.hostname or "")
    port = "" if parts.port in (None, _HTTP.get(parts.scheme)) else f":{parts.port}"
    return f"{parts.scheme}://{host}{port}{parts.path.rstrip('/')}"


def _canonical_host(name: str) -> str:
    spelled = name.removesuffix(".")
    with suppress(ValueError):
        address = ipaddress.ip_address(spelled)
        mapped = address.ipv4_mapped if address.version == 6 else None
        spelled = str(mapped or address)
    if spelled in _SELF:
        return _SELF[0]
    return f"[{spelled}]" if ":" in spelled else spelled
