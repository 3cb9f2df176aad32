"""Where input files come from: the job itself, buckets, and the web."""

import base64
import binascii
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from tasks.errors import InputUnavailableError, InvalidInputError, JobError
from tasks.request import label, shown
from workers.storage import ObjectStore
from workers.web import ForbiddenError, TooSlowError, UnusableError, Web, WebError


@dataclass(frozen=True)
class Opened:
    """A source that is being read.

    Attributes:
        pieces: its content as it comes; raises what `Sources.opened` does.
        size: in bytes, where it is known beforehand.
        tag: another one for other content, where there is one.
        changed: whether it is something else than what had the tag that was given.
    """

    pieces: Iterator[bytes]
    size: int | None = None
    tag: str = ""
    changed: bool = True


class Sources:
    """Reads `data:`, `s3://` and `https://`. Thread-safe."""

    def __init__(self, *, stores: Mapping[str, ObjectStore], web: Web) -> None:
        """Take the clients; they stay their maker's to close.

        Args:
            stores: the buckets that may be read, by name.
            web: what is in none of them.
        """
        self._stores = stores
        self._web = web

    @contextmanager
    def opened(self, name: str, source: str, tag: str = "") -> Iterator[Opened]:
        """Read a source.

        Args:
            name: of the input, for messages.
            source: where it is.
            tag: of what is known already: the same is not read again.

        Raises:
            InvalidInputError: it is none, may not be read or is not there.
            InputUnavailableError: its host may have it later.
            StorageUnavailableError, StorageDeniedError: the bucket may.
        """
        match source.partition(":")[0].lower():
            case "data":
                content = _data_url(name, source)
                yield Opened(iter((content,)), len(content))
            case "s3" if source[2:5] == "://":
                with self._object(name, source, tag) as found:
                    yield found
            case "https" | "http":
                with _told(name, source), self._web.get(source, tag) as answer:
                    yield Opened(answer.pieces, answer.length, answer.etag, answer.changed)
            case _:
                raise InvalidInputError(
                    f"input {shown(name)}: expected an https://, s3:// or data: URL, "
                    f"found {shown(source)}"
                )

    @contextmanager
    def _object(self, name: str, source: str, tag: str) -> Iterator[Opened]:
        # Not parsed as a URL: a key may hold whatever it likes, also ? and #.
        bucket, _, key = source[len("s3://") :].partition("/")
        store = self._stores.get(bucket)
        if store is None:
            known = ", ".join(self._stores)
            raise InvalidInputError(
                f"input {shown(name)}: found bucket {shown(bucket)}, expected {known} "
                "(INPUT_BUCKETS opens others)"
            )
        # A store that takes keys for paths would read another bucket.
        if {".", ".."} & set(key.split("/")):
            raise InvalidInputError(f"input {shown(name)}: the key {label(key)} has a part . or ..")
        missing = InvalidInputError(f"input {shown(name)}: there is no object {label(source)}")
        if not key:
            raise missing
        with store.opened(key, tag) as found:
            if found is None:
                raise missing
            yield Opened(found.pieces, found.size_bytes, found.etag, found.changed)


@contextmanager
def _told(name: str, source: str) -> Iterator[None]:
    """Make an error of the job of one of the web's."""
    try:
        yield
    except WebError as error:
        raise _meaning(error, f"input {shown(name)}: {_without_secrets(source)} {error}") from None


def _meaning(error: WebError, sentence: str) -> JobError:
    match error:
        case ForbiddenError():
            return InvalidInputError(f"{sentence} (INPUT_ALLOW_HOSTS opens others)")
        case UnusableError():
            return InvalidInputError(sentence)
        case TooSlowError():
            return InputUnavailableError(f"{sentence} (INPUT_TIMEOUT_SECONDS)")
        case _:
            return InputUnavailableError(sentence)


def _without_secrets(url: str) -> str:
    """Scheme, host and path. Not by parsing: what is no valid URL may have a secret, too."""
    scheme, _, rest = url.partition(":")
    place = rest.partition("?")[0].partition("#")[0].lstrip("/")
    return label(f"{scheme}://{place.rpartition('@')[2]}")


def _data_url(name: str, source: str) -> bytes:
    header, comma, data = source.partition(",")
    if not comma:
        raise InvalidInputError(f"input {shown(name)}: the data: URL has no comma before its data")
    if not header.lower().endswith(";base64"):
        return unquote_to_bytes(data)
    try:
        return base64.b64decode(unquote_to_bytes(data), validate=True)
    except binascii.Error:
        raise InvalidInputError(f"input {shown(name)}: the data: URL is no valid base64") from None
