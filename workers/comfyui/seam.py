"""The one place where errors of the HTTP libraries become ours."""

from collections.abc import Iterator
from contextlib import contextmanager

import requests
import urllib3

from tasks.errors import ComfyUIProtocolError, ComfyUIUnavailableError, JobError

# Most special first. Everything in `requests.exceptions` and `urllib3.exceptions` that a request
# can raise derives from one of these (a test goes through both modules).
_MEANING: tuple[tuple[type[Exception], type[JobError], str], ...] = (
    (
        requests.exceptions.JSONDecodeError,
        ComfyUIProtocolError,
        "answered something else than JSON",
    ),
    (requests.exceptions.ConnectTimeout, ComfyUIUnavailableError, "did not accept a connection"),
    (requests.exceptions.SSLError, ComfyUIUnavailableError, "has no valid TLS certificate"),
    (requests.exceptions.ProxyError, ComfyUIUnavailableError, "is not reachable by the proxy"),
    (requests.exceptions.Timeout, ComfyUIUnavailableError, "did not answer in time"),
    (requests.exceptions.ConnectionError, ComfyUIUnavailableError, "refused or cut the connection"),
    (requests.exceptions.ChunkedEncodingError, ComfyUIUnavailableError, "cut its answer short"),
    (requests.exceptions.RequestException, ComfyUIProtocolError, "could not be asked"),
    (urllib3.exceptions.TimeoutError, ComfyUIUnavailableError, "did not answer in time"),
    (urllib3.exceptions.HTTPError, ComfyUIUnavailableError, "cut its answer short"),
    (urllib3.exceptions.ProxySchemeUnsupported, ComfyUIProtocolError, "could not be asked"),
)

FOREIGN_ERRORS = (
    requests.exceptions.RequestException,
    urllib3.exceptions.HTTPError,
    # The one that has another base.
    urllib3.exceptions.ProxySchemeUnsupported,
)


@contextmanager
def translated(base_url: str) -> Iterator[None]:
    """Raise this project's error for each one that the HTTP libraries raise inside.

    Raises:
        ComfyUIUnavailableError: there was no answer, or only a part of one.
        ComfyUIProtocolError: the answer was none of ComfyUI's.
    """
    try:
        yield
    except FOREIGN_ERRORS as error:
        raise meaning_of(error, base_url) from error


def meaning_of(error: Exception, base_url: str) -> JobError:
    """The error of ours that stands for one of the HTTP libraries'."""
    for foreign, ours, what in _MEANING:
        if isinstance(error, foreign):
            return ours(f"ComfyUI at {base_url} {what} ({type(error).__name__})")
    raise TypeError(f"{type(error).__name__} is no error of the HTTP libraries")
