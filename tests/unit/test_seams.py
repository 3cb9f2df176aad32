"""No error of a foreign library may slip through: each that exists is tried."""

import http.client
import inspect
import socket
import ssl
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import boto3.exceptions
import botocore.exceptions
import pytest
import redis
import redis.exceptions
import requests
import urllib3

from tasks.errors import (
    BrokerFullError,
    BrokerUnavailableError,
    ComfyUIProtocolError,
    ComfyUIUnavailableError,
    JobError,
    StorageDeniedError,
    StorageUnavailableError,
)
from workers.comfyui import seam as comfyui_seam
from workers.ledger import seam as ledger_seam
from workers.storage import seam as storage_seam
from workers.web import UnusableError, WebError
from workers.web import seam as web_seam


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


@pytest.mark.parametrize(
    "cls",
    sorted(
        {
            *raised_by(urllib3.exceptions),
            *raised_by(http.client),
            *(socket.gaierror, socket.herror, ssl.SSLError, ssl.SSLCertVerificationError),
            *(OSError, TimeoutError, ConnectionResetError, BrokenPipeError),
        },
        key=str,
    ),
    ids=str,
)
def test_every_error_of_the_way_into_the_web_becomes_that_ways(cls: type[Exception]) -> None:
    with pytest.raises(WebError, match=r"h\.example"):
        with web_seam.translated("h.example"):
            raise blank(cls)


@pytest.mark.parametrize(
    ("foreign", "ours"),
    [
        (socket.gaierror(socket.EAI_NONAME, "x"), UnusableError),
        (socket.gaierror(socket.EAI_NODATA, "x"), UnusableError),
        (socket.gaierror(socket.EAI_AGAIN, "x"), WebError),
        (ssl.SSLCertVerificationError("x"), UnusableError),
        (ssl.SSLEOFError("x"), WebError),
        (ConnectionRefusedError("x"), WebError),
        (http.client.RemoteDisconnected("x"), WebError),
        (urllib3.exceptions.DecodeError("x"), UnusableError),
        (urllib3.exceptions.ProtocolError("x"), WebError),
    ],
    ids=lambda one: one.__class__.__name__,
)
def test_errors_of_the_way_into_the_web_by_meaning(
    foreign: Exception, ours: type[WebError]
) -> None:
    assert type(web_seam.meaning_of(foreign, "h.example")) is ours


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


# Of a cluster's client, of a fork and of asyncio's policies: nothing that a plain client raises.
NOT_OF_A_PLAIN_CLIENT = {
    "ChildDeadlockedError",
    "CrossSlotTransactionError",
    "IncorrectPolicyType",
    "InvalidPipelineStack",
    "RedisClusterException",
    "SlotNotCoveredError",
}
REDIS_ERRORS = set(raised_by(redis.exceptions))


@pytest.mark.parametrize("cls", sorted(REDIS_ERRORS, key=str), ids=lambda c: c.__name__)
def test_every_error_of_the_redis_client_becomes_ours(cls: type[Exception]) -> None:
    if cls.__name__ in NOT_OF_A_PLAIN_CLIENT:
        assert not issubclass(cls, redis.RedisError)
        return
    full = cls is redis.exceptions.OutOfMemoryError
    with pytest.raises(BrokerFullError if full else BrokerUnavailableError, match="^Redis "):
        with ledger_seam.translated():
            raise blank(cls)


@pytest.mark.parametrize(
    "text",
    [
        "OOM command not allowed when used memory > 'maxmemory'.",
        "-OOM command not allowed when used memory > 'maxmemory'. script: 1, on @user_script:7.",
    ],
)
def test_a_full_redis_is_known_by_its_code_also_from_a_script(text: str) -> None:
    error = ledger_seam.meaning_of(redis.ResponseError(text))
    assert type(error) is BrokerFullError
    assert "maxmemory" in error.message


def test_who_is_not_allowed_something_is_told_so() -> None:
    error = ledger_seam.meaning_of(redis.exceptions.NoPermissionError("secret"))
    assert error.message.startswith("Redis does not let this user do that; its ACL")


def test_an_answer_of_redis_is_not_quoted() -> None:
    # It may hold a command, and that a request with its inputs.
    error = ledger_seam.meaning_of(redis.ResponseError("unknown command 'x' secret"))
    assert error.message == "Redis did not answer (ResponseError)"
