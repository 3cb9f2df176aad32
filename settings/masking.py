"""Secrets, as they are shown: not at all."""

import json
import re
from typing import Any

from pydantic import SecretStr

MASK = "********"

_URL = re.compile(r"[a-z][a-z0-9+.-]*://")
_BETWEEN = re.compile(rf";(?={_URL.pattern})")


def without_password(url: str) -> str:
    """The URL, or Celery's list of them joined by semicolons, with each secret masked.

    Not by parsing: a password with a slash in it is no valid URL, and still a password. So is one
    with a semicolon, which ends a URL of a list only where another one begins.
    """
    if len(urls := _BETWEEN.split(url)) > 1:
        return ";".join(without_password(one) for one in urls)
    scheme, separator, rest = url.partition("://") if "://" in url else ("", "", url)
    credentials, at, place = rest.rpartition("@")
    user = f"{credentials.partition(':')[0]}:{MASK}@" if at else ""
    path, question, query = place.partition("?")
    return scheme + separator + user + path + question + re.sub(r"=[^&]*", f"={MASK}", query)


def shown(value: Any) -> str | None:
    """A setting's value with every secret masked; None if it is not set."""
    match value:
        case None | "" | ():
            return None
        case tuple():
            # Secrets in a list are no URLs, of which a part could be shown.
            return ",".join(MASK if isinstance(one, SecretStr) else one for one in value)
        case SecretStr():
            text = value.get_secret_value()
            return without_password(text) if _URL.match(text) else MASK
        case dict():
            return json.dumps(dict.fromkeys(value, MASK)) if value else None
        case _:
            return without_password(str(value))
