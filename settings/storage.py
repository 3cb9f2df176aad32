"""The object store that outputs and manifests go to."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field, field_validator

from settings.bounds import MOST_SECONDS
from settings.urls import http_url

_MOST_PREFIX_BYTES = 200


class Storage(BaseModel):
    """Settings of the object store."""

    s3_bucket: str = Field(
        "",
        alias="S3_BUCKET",
        description="Bucket that receives outputs and manifests. A worker needs it.",
    )
    s3_prefix: str = Field(
        "",
        alias="S3_PREFIX",
        description="Prefix of every object key that workers write.",
    )
    s3_endpoint_url: Annotated[str | None, AfterValidator(http_url)] = Field(
        None,
        alias="S3_ENDPOINT_URL",
        description="Endpoint of an S3-compatible store; unset: boto3's own chain decides.",
    )
    s3_patience_seconds: float = Field(
        900.0,
        alias="S3_PATIENCE_SECONDS",
        ge=0,
        le=MOST_SECONDS,
        description="Seconds for which an upload is tried again before the job is handed on.",
    )

    @field_validator("s3_bucket")
    @classmethod
    def _plain_bucket(cls, value: str) -> str:
        # Of an access point the name is an ARN, with slashes.
        if "/" in value and not value.startswith("arn:"):
            raise ValueError("the name of a bucket, without s3:// and slashes")
        return value

    @field_validator("s3_prefix")
    @classmethod
    def _clean_prefix(cls, value: str) -> str:
        prefix = value.strip("/")
        if any(part in ("", ".", "..") for part in prefix.split("/")) and prefix:
            raise ValueError("folder names joined by single slashes, without . or ..")
        # A key has 1,024 bytes, and the names below need theirs.
        if not prefix.isprintable() or len(prefix.encode("utf-8", "replace")) > _MOST_PREFIX_BYTES:
            raise ValueError(f"at most {_MOST_PREFIX_BYTES} bytes of printable characters")
        return prefix
