"""Secrets of our own in a variable: several, so that a new one can come before the old one goes."""

import base64
import binascii
import re
from typing import Annotated, Any

from pydantic import BeforeValidator, SecretStr
from pydantic_settings import NoDecode

_WEBHOOK_PREFIX = "whsec_"
# What the Standard Webhooks specification asks for.
_WEBHOOK_BYTES = range(24, 65)
_MESSAGE_CHARACTERS = 32


def separated(value: Any) -> Any:
    """The secrets of a variable, separated by spaces or commas."""
    if not isinstance(value, str):
        return value
    return tuple(SecretStr(one) for one in re.split(r"[\s,]+", value) if one)


Separated = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(separated)]
"""A setting that is such secrets."""


def of_webhooks(value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    """The same secrets, each of a form that receivers' libraries read."""
    if not all(_webhook_key(one) for one in value):
        raise ValueError(
            "whsec_ and the base64 of 24 to 64 random bytes, several separated by commas"
        )
    return value


def of_messages(value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    """The same secrets, each too long to be guessed."""
    if not all(len(one.get_secret_value()) >= _MESSAGE_CHARACTERS for one in value):
        raise ValueError(
            f"{_MESSAGE_CHARACTERS} random characters or more, several separated by commas"
        )
    return value


def webhook_keys(value: tuple[SecretStr, ...]) -> tuple[bytes, ...]:
    """The keys that such secrets stand for."""
    return tuple(_webhook_key(one) for one in value)


def _webhook_key(secret: SecretStr) -> bytes:
    """The key; empty if the secret has another form."""
    prefix, separator, encoded = secret.get_secret_value().partition("_")
    if prefix + separator != _WEBHOOK_PREFIX:
        return b""
    try:
        key = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return b""
    return key if len(key) in _WEBHOOK_BYTES else b""
