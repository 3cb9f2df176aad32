"""No error of a foreign library may slip through: each that exists is tried."""

import inspect
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import boto3.exceptions
import botocore.exceptions
import pytest
import requests
import urllib3

from tasks.errors import (
    ComfyUIProtocolError,
    ComfyUIUnavailableError,
    JobError,
    StorageDeniedError,
    StorageUnavailableError,
)
from workers.comfyui import seam as comfyui_seam
from workers.storage import seam as storage_seam


def raised_by(module: ModuleType) -> Iterator[type[Exception]]:
    package = module.__name__.partition(".")[0]
    for _, cls in inspect.getmembers(module, inspect.isclass):
        of_package = cls.__module__.partition(".")[0] == package
        if of_package and issubclass(cls, Exception) and not issubclass(cls, Warning):
            yield cls


def blank(cls: type[Exception]) -> Exception:
    """An instance, whatever its constructor wants."""
    return cls.__new__(cls)


@pytest.mark.parametrize(
    "cls",
    sorted({*raised_by(requests.exceptions), *raised_by(urllib3.exceptions)}, key=str),
    ids=str,
)
def test_every_error_of_the_http_libraries_becomes_ours(cls: type[Exception]) -> None:
    with pytest.raises(JobError, match="ComfyUI at http://gpu"):
        with comfyui_seam.translated("http://gpu"):
            raise blank(cls)


@pytest.mark.parametrize(
    ("foreign", "ours"),
    [
        (requests.exceptions.ConnectionError, ComfyUIUnavailableError),
        (requests.exceptions.ReadTimeout, ComfyUIUnavailableError),
        (requests.exceptions.ChunkedEncodingError, ComfyUIUnavailableError),
        (urllib3.exceptions.ProtocolError, ComfyUIUnavailableError),
        (urllib3.exceptions.IncompleteRead, ComfyUIUnavailableError),
        (urllib3.exceptions.ReadTimeoutError, ComfyUIUnavailableError),
        (requests.exceptions.InvalidURL, ComfyUIProtocolError),
        (requests.exceptions.JSONDecodeError, ComfyUIProtocolError),
    ],
)
def test_http_errors_by_meaning(foreign: type[Exception], ours: type[JobError]) -> None:
    assert type(comfyui_seam.meaning_of(blank(foreign), "http://gpu")) is ours


def test_other_errors_are_not_the_http_seams() -> None:
    with pytest.raises(TypeError, match="KeyError is no error of the HTTP libraries"):
        comfyui_seam.meaning_of(KeyError("x"), "http://gpu")


STORAGE_ERRORS = {
    cls
    for module in (botocore.exceptions, boto3.exceptions)
    for cls in raised_by(module)
    # These two are about the library's own data files.
    if cls.__name__ not in ("MissingServiceIdError", "UndefinedModelAttributeError")
}


@pytest.mark.parametrize("cls", sorted(STORAGE_ERRORS, key=str), ids=lambda c: c.__name__)
def test_every_error_of_boto_becomes_ours(cls: type[Exception]) -> None:
    error: Any = blank(cls)
    error.response, error.operation_name = {}, "PutObject"
    with pytest.raises(JobError, match="bucket 'b'"):
        with storage_seam.translated("b"):
            raise error


@pytest.mark.parametrize(
    ("status", "code", "ours"),
    [
        (403, "AccessDenied", StorageDeniedError),
        (404, "NoSuchBucket", StorageDeniedError),
        (500, "InternalError", StorageUnavailableError),
        (503, "SlowDown", StorageUnavailableError),
        (409, "ConditionalRequestConflict", StorageUnavailableError),
    ],
)
def test_answers_of_the_store_by_meaning(status: int, code: str, ours: type[JobError]) -> None:
    answer = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    error = botocore.exceptions.ClientError(answer, "PutObject")  # type: ignore[arg-type]
    failure = storage_seam.meaning_of(error, "b")
    assert type(failure) is ours
    assert f"({status} {code})" in failure.message


def test_an_upload_that_failed_tells_why() -> None:
    answer = {"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {"HTTPStatusCode": 403}}
    error = boto3.exceptions.S3UploadFailedError("x")
    error.__cause__ = botocore.exceptions.ClientError(answer, "UploadPart")  # type: ignore[arg-type]
    assert type(storage_seam.meaning_of(error, "b")) is StorageDeniedError
