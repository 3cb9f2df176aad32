"""The one place where errors of sockets and of the HTTP library become this package's."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException

import urllib3

from workers.web.errors import UnusableError, WebError

FOREIGN_ERRORS = (
    OSError,
    HTTPException,
    urllib3.exceptions.HTTPError,
    # The one that has another base.
    urllib3.exceptions.ProxySchemeUnsupported,
)

# Most special first; what is not here had no answer, for whatever reason.
_MEANING: tuple[tuple[type[Exception], type[WebError], str], ...] = (
    (ssl.SSLCertVerificationError, UnusableError, "has no valid TLS certificate"),
    (ssl.SSLError, WebError, "failed to agree on TLS"),
    (socket.gaierror, WebError, "could not be resolved"),
    (ConnectionRefusedError, WebError, "refused the connection"),
    (TimeoutError, WebError, "did not answer in time"),
    (urllib3.exceptions.TimeoutError, WebError, "did not answer in time"),
    (urllib3.exceptions.IncompleteRead, WebError, "cut its answer short"),
    (urllib3.exceptions.DecodeError, UnusableError, "sent what cannot be decompressed"),
    (OSError, WebError, "cannot be reached or cut the connection"),
)
# Names that do not exist, or have no address: the others may be answered later.
_NO_NAME = (socket.EAI_NONAME, socket.EAI_NODATA)


@contextmanager
def translated(host: str) -> Iterator[None]:
    """Raise this package's error for each foreign one that is raised inside.

    Raises:
        WebError: there was no answer, or only a part of one.
        UnusableError: there is no such host, or it is another one.
    """
    try:
        yield
    except FOREIGN_ERRORS as error:
        raise meaning_of(error, host) from error


def meaning_of(error: Exception, host: str) -> WebError:
    """The error of this package that stands for a foreign one."""
    if isinstance(error, socket.gaierror) and error.errno in _NO_NAME:
        return UnusableError(f"names {host}, which does not exist")
    kind, what = next(
        ((ours, what) for foreign, ours, what in _MEANING if isinstance(error, foreign)),
        (WebError, "answered nothing that can be read"),
    )
    return kind(f"{what}: {host} ({type(error).__name__})")
