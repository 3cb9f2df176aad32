"""URLs of Redis servers and sentinels, in the one spelling that all who connect understand.

Celery's result backend, kombu and the Redis client each read a URL anew, and differ in what they
make of one that leaves something out: kombu then checks no certificate, and of several sentinels
it asks the next one for another database. So nothing may be left out.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from settings.urls import has_valid_port

SCHEMES = ("redis", "rediss", "sentinel")

_CHECKS = ("required", "optional", "none", "CERT_REQUIRED", "CERT_OPTIONAL", "CERT_NONE")
_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_TLS = ("ssl_cert_reqs", *_FILES, "ssl_check_hostname")

# How a URL for our own client says what Celery is told in its options.
_MASTER_NAME = "master_name"
_SENTINEL_USERNAME = "sentinel_username"
_SENTINEL_PASSWORD = "sentinel_password"  # noqa: S105  # a parameter's name


@dataclass(frozen=True)
class Sentinels:
    """The sentinels that know a master, and what that asks for.

    Attributes:
        addresses: host and port of each sentinel.
        master_name: under which they know the master.
        username: at the servers; None for none.
        password: at the servers.
        database: number.
        tls: the Redis client's `ssl_` options, for servers and sentinels alike; empty: no TLS.
        sentinel_username: at the sentinels.
        sentinel_password: at the sentinels.
    """

    addresses: tuple[tuple[str, int], ...]
    master_name: str
    username: str | None
    password: str | None
    database: int
    tls: Mapping[str, Any]
    sentinel_username: str | None
    sentinel_password: str | None


def is_sentinel(url: str) -> bool:
    """Whether sentinels say where the server is."""
    return url.startswith("sentinel://")


def checked(url: str) -> str:
    """Return a URL that everybody understands alike.

    Raises:
        ValueError: with what is expected instead.
    """
    urls = url.split(";")
    if is_sentinel(url):
        _check_sentinels(urls)
    elif len(urls) > 1:
        raise ValueError("one server; with replicas to fail over to, sentinel:// URLs")
    else:
        _check(url)
    return url


def for_our_client(
    url: str, *, master_name: str = "", username: str | None = None, password: str | None = None
) -> str:
    """The URL as the Redis client takes it; one of sentinels as `read_sentinels` does.

    Args:
        url: as Celery has it.
        master_name: under which sentinels know the master.
        username: at the sentinels.
        password: at the sentinels.
    """
    # Celery also takes the names of Python's ssl module, the Redis client does not.
    url = re.sub(r"(?<=ssl_cert_reqs=)CERT_(\w+)", lambda found: found.group(1).lower(), url)
    if not is_sentinel(url):
        return url
    given = {
        _MASTER_NAME: master_name,
        _SENTINEL_USERNAME: username,
        _SENTINEL_PASSWORD: password,
    }
    query = urlencode({name: value for name, value in given.items() if value}, quote_via=quote)
    return f"{url}{'&' if '?' in url else '?'}{query}"


def read_sentinels(url: str) -> Sentinels:
    """What a URL of sentinels says that `for_our_client` has made."""
    parts = [urlsplit(one) for one in url.split(";")]
    last = parts[-1]
    options = dict(parse_qsl(last.query))
    return Sentinels(
        addresses=tuple((str(part.hostname), part.port or 0) for part in parts),
        master_name=options.get(_MASTER_NAME, ""),
        username=unquote(last.username or "") or None,
        password=unquote(last.password or "") or None,
        database=int(last.path.strip("/") or 0),
        tls=tls_options(url),
        sentinel_username=options.get(_SENTINEL_USERNAME),
        sentinel_password=options.get(_SENTINEL_PASSWORD),
    )


def tls_options(url: str) -> dict[str, Any]:
    """The Redis client's options for TLS that stand in a URL; empty: none."""
    query = dict(parse_qsl(urlsplit(url.rpartition(";")[2]).query))
    options: dict[str, Any] = {name: query[name] for name in _TLS if name in query}
    if "ssl_cert_reqs" in options:
        options["ssl_cert_reqs"] = options["ssl_cert_reqs"].removeprefix("CERT_").lower()
    if "ssl_check_hostname" in options:
        options["ssl_check_hostname"] = options["ssl_check_hostname"] == "true"
    return options


def _check_sentinels(urls: list[str]) -> None:
    parts = [urlsplit(one) for one in urls]
    for url, part in zip(urls, parts, strict=True):
        whole = part.scheme == "sentinel" and part.hostname and has_valid_port(url) and part.port
        if not whole:
            raise ValueError(
                "sentinel:// URLs, each with host and port, separated by semicolons such as "
                "sentinel://a:26379/0;sentinel://b:26379/0"
            )
        _check(url)
    said = {
        (part.username, part.password, part.path.strip("/") or "0", part.query) for part in parts
    }
    if len(said) > 1:
        raise ValueError(
            "the same user, password, database and parameters in each URL of the list: Celery "
            "goes by the one it happens to use"
        )


def _check(url: str) -> None:
    scheme = url.partition("://")[0]
    if scheme not in SCHEMES or "://" not in url or not has_valid_port(url):
        raise ValueError("a redis://, rediss:// or sentinel:// URL such as redis://host:6379/0")
    parts = urlsplit(url)
    if not re.fullmatch(r"/?[0-9]*", parts.path):
        raise ValueError("the number of a database after the host, such as redis://host:6379/0")
    _check_tls(scheme, dict(parse_qsl(parts.query, keep_blank_values=True)))


def _check_tls(scheme: str, query: Mapping[str, str]) -> None:
    tls = {name: value for name, value in query.items() if name.startswith("ssl_")}
    if scheme == "redis" and tls:
        raise ValueError("rediss:// with parameters of TLS; redis:// is without TLS")
    if unknown := sorted(tls.keys() - set(_TLS)):
        raise ValueError(f"of parameters {', '.join(_TLS)} and not {unknown[0]}")
    if (scheme == "rediss" or tls) and tls.get("ssl_cert_reqs") not in _CHECKS:
        raise ValueError(
            "a parameter ssl_cert_reqs that is required, optional or none, such as "
            "rediss://host:6379/0?ssl_cert_reqs=required"
        )
    if tls.get("ssl_check_hostname", "true") not in ("true", "false"):
        raise ValueError("ssl_check_hostname to be true or false")
    if "ssl_keyfile" in tls and "ssl_certfile" not in tls:
        raise ValueError("ssl_certfile beside ssl_keyfile: a key without a certificate is no use")
    for name in _FILES:
        if name in tls and not Path(tls[name]).is_file():
            raise ValueError(f"{name} to name a file that is there")
