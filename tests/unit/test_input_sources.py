"""What becomes of a web's errors, and of buckets that are not the worker's own."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.errors import InputUnavailableError, InvalidInputError, JobError, StorageDeniedError
from workers.inputs import Sources
from workers.web import Answer, ForbiddenError, TooSlowError, UnusableError, WebError

URL = "https://me:pass@word@h.example/a.png?signature=secret#secret"


def sources(error: WebError | None = None, **stores: Any) -> Sources:
    @contextmanager
    def get(_: str, __: str) -> Iterator[Answer]:
        def pieces() -> Iterator[bytes]:
            yield b"red"
            if error:
                raise error

        yield Answer(pieces())

    return Sources(stores=stores, web=SimpleNamespace(get=get))  # type: ignore[arg-type]


def read(known: Sources, source: str) -> bytes:
    with known.opened("a.png", source) as opened:
        return b"".join(opened.pieces)


@pytest.mark.parametrize(
    ("error", "ours", "end"),
    [
        (WebError("refused"), InputUnavailableError, "refused"),
        (TooSlowError("took long"), InputUnavailableError, "took long (INPUT_TIMEOUT_SECONDS)"),
        (UnusableError("is none"), InvalidInputError, "is none"),
        (
            ForbiddenError("leads astray"),
            InvalidInputError,
            "leads astray (INPUT_ALLOW_HOSTS opens others)",
        ),
    ],
)
def test_an_error_of_the_web_is_one_of_the_job_and_tells_no_secret(
    error: WebError, ours: type[JobError], end: str
) -> None:
    with pytest.raises(JobError) as caught:
        read(sources(error), URL)
    assert type(caught.value) is ours
    assert caught.value.message == f"input 'a.png': https://h.example/a.png {end}"
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("source", ["https://h/a", "HTTPS://h/a", "http://h/a"])
def test_the_web(source: str) -> None:
    assert read(sources(), source) == b"red"


@contextmanager
def denied(*_: str) -> Iterator[None]:
    raise StorageDeniedError("no")
    yield


def test_only_buckets_that_were_opened_are_read() -> None:
    known = sources(own=SimpleNamespace(opened=denied), other=SimpleNamespace(opened=denied))
    for bucket in ("own", "other"):
        with pytest.raises(StorageDeniedError):
            read(known, f"s3://{bucket}/a")
    for bucket in ("third", "Own", "own.", "", "own%2f", "own?"):
        with pytest.raises(InvalidInputError, match=r"expected own, other \(INPUT_BUCKETS"):
            read(known, f"s3://{bucket}/a")


@pytest.mark.parametrize("key", ["../other/a", "a/../../other/a", "./a", "a/..", ".", ".."])
def test_a_key_that_may_lead_out_of_its_bucket_is_refused(key: str) -> None:
    with pytest.raises(
        InvalidInputError, match=r"input 'a\.png': the key .* has a part \. or \.\."
    ):
        read(sources(own=SimpleNamespace(opened=denied)), f"s3://own/{key}")


@pytest.mark.parametrize(
    "source",
    ["file:/etc/passwd", "/etc/passwd", "ftp://h/a", "", "a.png", "s3:/own/a", "gopher://h/"],
)
def test_what_is_no_source_is_named(source: str) -> None:
    with pytest.raises(InvalidInputError, match="expected an https://, s3:// or data: URL, found"):
        read(sources(), source)


@pytest.mark.parametrize(
    ("source", "content"),
    [
        ("data:,a%20b", b"a b"),
        ("data:text/plain,a", b"a"),
        ("DATA:;BASE64,cmVk", b"red"),
        ("data:;base64,cmVk", b"red"),
        ("data:;base64,cmV%6b", b"red"),
    ],
)
def test_data_urls(source: str, content: bytes) -> None:
    assert read(sources(), source) == content
