"""Which job this thread works for, so that all it logs can say so."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

_NOTHING: Mapping[str, Any] = MappingProxyType({})
_about: ContextVar[Mapping[str, Any]] = ContextVar("comfyfleet_log_fields", default=_NOTHING)


def fields() -> Mapping[str, Any]:
    """What is known of the job that this thread works for: field to value; empty if it is none."""
    return _about.get()


@contextmanager
def about(**known: Any) -> Iterator[None]:
    """Work for this job in the block; what is noted there ends with it."""
    token = _about.set({**_about.get(), **known})
    try:
        yield
    finally:
        _about.reset(token)


def note(**known: Any) -> None:
    """Add what has become known of the job, until the end of the `about` around it."""
    _about.set({**_about.get(), **known})
