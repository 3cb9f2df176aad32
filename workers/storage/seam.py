"""The one place where errors of boto3 become ours."""

from collections.abc import Iterator
from contextlib import contextmanager

import botocore.exceptions
from boto3.exceptions import Boto3Error

from tasks.errors import JobError, StorageDeniedError, StorageUnavailableError

FOREIGN_ERRORS = (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError, Boto3Error)

# Nothing was sent: the bucket's name or the credentials cannot be right.
_MISCONFIGURED = (
    botocore.exceptions.ParamValidationError,
    botocore.exceptions.NoCredentialsError,
    botocore.exceptions.PartialCredentialsError,
    botocore.exceptions.CredentialRetrievalError,
    botocore.exceptions.TokenRetrievalError,
    botocore.exceptions.UnauthorizedSSOTokenError,
    botocore.exceptions.ProfileNotFound,
    botocore.exceptions.NoRegionError,
)

# Codes with which stores say that trying again is of no use before somebody changes something.
_DENIED_STATUS = (401, 403)
_DENIED_CODES = ("NoSuchBucket", "InvalidBucketName", "PermanentRedirect", "QuotaExceeded")


@contextmanager
def translated(bucket: str) -> Iterator[None]:
    """Raise this project's error for each one that boto3 raises inside.

    Raises:
        StorageUnavailableError: there was no answer, or one that asks to come again.
        StorageDeniedError: the bucket is not there or not ours to use.
    """
    try:
        yield
    except FOREIGN_ERRORS as error:
        raise meaning_of(error, bucket) from error


def meaning_of(error: Exception, bucket: str) -> JobError:
    """The error of ours that stands for one of boto3's."""
    cause = error.__cause__ if isinstance(error, Boto3Error) else error
    if isinstance(cause, botocore.exceptions.ClientError):
        return _answer(cause, bucket)
    name = type(cause or error).__name__
    if isinstance(cause, _MISCONFIGURED):
        return StorageDeniedError(
            f"bucket {bucket!r} cannot be used with the credentials and settings found ({name})"
        )
    return StorageUnavailableError(f"the store of bucket {bucket!r} did not answer ({name})")


def status_and_code(error: botocore.exceptions.ClientError) -> tuple[int, str]:
    """HTTP status and S3 error code of an answer."""
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return status, error.response.get("Error", {}).get("Code", "")


def answer(error: JobError) -> tuple[int, str]:
    """HTTP status and S3 error code behind an error of ours; 0 and nothing without an answer."""
    cause = _cause(error)
    return (0, "") if cause is None else status_and_code(cause)


def headers(error: JobError) -> dict[str, str]:
    """The headers of the answer behind an error of ours; none without an answer."""
    cause = _cause(error)
    metadata = cause.response.get("ResponseMetadata", {}) if cause is not None else {}
    return dict(metadata.get("HTTPHeaders", {}))


def _cause(error: JobError) -> botocore.exceptions.ClientError | None:
    cause = error.__cause__
    cause = cause.__cause__ if isinstance(cause, Boto3Error) else cause
    return cause if isinstance(cause, botocore.exceptions.ClientError) else None


def _answer(error: botocore.exceptions.ClientError, bucket: str) -> JobError:
    status, code = status_and_code(error)
    what = f"{error.operation_name} on bucket {bucket!r} ({status} {code})"
    if status in _DENIED_STATUS or code in _DENIED_CODES:
        return StorageDeniedError(f"the store refuses {what}")
    return StorageUnavailableError(f"the store failed at {what}")
