"""What a log record says, as text and plain values: bounded, and never an error."""

import logging
import math
import re
import traceback
from collections.abc import Mapping
from typing import Any

# Characters of a message, of an exception with its traceback, and of a field.
MOST_MESSAGE = 8_000
MOST_EXCEPTION = 16_000
MOST_FIELD = 1_000
# Fields of a line, or of a field.
MOST_FIELDS = 50

# Programs that read JSON may have no numbers beyond.
_MOST_INTEGER = 2**63

_CREDENTIALS = re.compile(r"://[^/\s]+@")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def message_of(record: logging.LogRecord) -> str:
    """The message with its arguments; where they do not fit, what can be told of it."""
    try:
        message = record.getMessage()
    except Exception as error:  # noqa: BLE001  # whatever the arguments do when they are shown
        message = f"{_text(record.msg)} (its arguments cannot be shown: {type(error).__name__})"
    return _written(message, MOST_MESSAGE)


def exception_of(record: logging.LogRecord) -> str | None:
    """The exception with its traceback, if there is one."""
    try:
        if record.exc_info and record.exc_info[0] is not None:
            told = "".join(traceback.format_exception(*record.exc_info))
        else:
            told = record.exc_text or record.stack_info or ""
    except Exception as error:  # noqa: BLE001  # exceptions may have a text of their own
        told = f"an exception that cannot be shown: {type(error).__name__}"
    return _written(told.rstrip("\n"), MOST_EXCEPTION) or None


def plain_fields(given: Any) -> dict[str, Any]:
    """Fields as values that JSON has, without those that are None."""
    if not isinstance(given, Mapping):
        return {}
    some = list(given.items())[:MOST_FIELDS]
    return {_written(_text(name), 100): _plain(one) for name, one in some if one is not None}


def _plain(value: Any, *, nested: bool = True) -> Any:
    match value:
        case bool() | None:
            return value
        case int():
            return value if abs(value) < _MOST_INTEGER else "(a huge number)"
        case float() if math.isfinite(value):
            return value
        case Mapping() if nested:
            some = list(value.items())[:MOST_FIELDS]
            return {_written(_text(k), 100): _plain(v, nested=False) for k, v in some}
        case _:
            return _written(_text(value), MOST_FIELD)


def _text(value: Any) -> str:
    try:
        return str(value)
    except Exception as error:  # noqa: BLE001  # values may have a text of their own
        return f"({type(value).__name__}, which cannot be shown: {type(error).__name__})"


def _written(text: str, most: int) -> str:
    """A text that can be encoded, without passwords of URLs, cut in its middle if it is long."""
    # Before it is cut: of half a URL nobody would know that there is a password in it.
    text = _CREDENTIALS.sub("://...@", text)
    if len(text) > most:
        half = most // 2
        text = f"{text[:half]} ...({len(text) - 2 * half} characters left out)... {text[-half:]}"
    return _SURROGATE.sub("\ufffd", text)
