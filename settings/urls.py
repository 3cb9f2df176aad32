"""URLs in variables."""

from urllib.parse import urlsplit

_HTTP = ("http", "https")


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
        raise ValueError("an http:// or https:// URL with a host, without query or fragment")
    return value.rstrip("/")


def has_valid_port(url: str) -> bool:
    """Whether the port of a URL, if it has one, is one."""
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False
