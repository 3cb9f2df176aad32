"""Lists in a variable, separated by commas: of buckets, and of hosts."""

import ipaddress
import re
from typing import Annotated, Any

from pydantic import BeforeValidator
from pydantic_settings import NoDecode

# More than S3 allows today: other stores are less strict.
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")

_LABEL = "[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?"
# A number as the last label is meant as a part of an address.
_HOST = re.compile(rf"(?:{_LABEL}\.)*(?!(?:[0-9]+|0x[0-9a-f]*)$){_LABEL}")


def separated(value: Any) -> Any:
    """The parts of a variable; what is no text is a list already."""
    if not isinstance(value, str):
        return value
    return tuple(part.strip() for part in value.split(",") if part.strip())


Separated = Annotated[tuple[str, ...], NoDecode, BeforeValidator(separated)]
"""A setting that is such a list."""


def buckets(value: tuple[str, ...]) -> tuple[str, ...]:
    """The same names, each of a bucket."""
    if not all(_BUCKET.fullmatch(name) for name in value):
        raise ValueError("names of buckets, separated by commas")
    return value


def hosts(value: tuple[str, ...]) -> tuple[str, ...]:
    """The hosts in the spelling in which they are compared."""
    spelled = tuple(host.lower().rstrip(".") for host in value)
    if not all(_is_network(host) or _HOST.fullmatch(host) for host in spelled):
        raise ValueError(
            "host names, addresses or networks such as files.lan,10.1.2.3,10.2.0.0/16, "
            "separated by commas"
        )
    return spelled


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return True
