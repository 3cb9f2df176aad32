"""Every setting: its variable, its default, its unit and what a valid value is."""

import json
import re
from functools import cache
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from settings import lists

MASK = "********"

_BROKERS = ("redis", "rediss")
_HTTP = ("http", "https")


# RFC 9110, 5.6.2.
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

_Separated = Annotated[tuple[str, ...], NoDecode, BeforeValidator(lists.separated)]

# A day: longer than any timeout means anything.
_MOST_SECONDS = 86_400


_MOST_PREFIX_BYTES = 200


class SettingsError(Exception):
    """One or more settings are wrong; the message has one line a variable."""


class Settings(BaseSettings):
    """The effective settings of this process.

    Variables carry the names of the fields' aliases. AWS credentials and region are not here:
    boto3's own chain finds them.
    """

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)

    broker_url: SecretStr = Field(
        SecretStr("redis://127.0.0.1:6379/0"),
        alias="CELERY_BROKER_URL",
        description="Broker that carries the jobs.",
    )
    result_backend: SecretStr = Field(
        SecretStr("redis://127.0.0.1:6379/0"),
        alias="CELERY_RESULT_BACKEND",
        description="Result backend that keeps states, progress and results.",
    )
    result_expires_seconds: int = Field(
        86_400,
        alias="RESULT_EXPIRES",
        ge=60,
        description="Seconds a result stays in the result backend.",
    )
    comfyui_url: str = Field(
        "http://127.0.0.1:8188",
        alias="COMFYUI_URL",
        description="Base URL of the one ComfyUI server that this worker drives.",
    )
    comfyui_headers: Annotated[dict[str, SecretStr], NoDecode] = Field(
        default_factory=dict,
        alias="COMFYUI_HEADERS",
        description="JSON object of headers for every request to ComfyUI (Authorization, Cookie).",
    )
    comfyui_connect_timeout_seconds: float = Field(
        5.0,
        alias="COMFYUI_CONNECT_TIMEOUT_SECONDS",
        gt=0,
        le=_MOST_SECONDS,
        description="Seconds to wait for a connection to ComfyUI.",
    )
    comfyui_read_timeout_seconds: float = Field(
        60.0,
        alias="COMFYUI_READ_TIMEOUT_SECONDS",
        gt=0,
        le=_MOST_SECONDS,
        description="Seconds to wait for the next bytes of an answer from ComfyUI.",
    )
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
    s3_endpoint_url: str | None = Field(
        None,
        alias="S3_ENDPOINT_URL",
        description="Endpoint of an S3-compatible store; unset: boto3's own chain decides.",
    )
    worker_slots: int = Field(
        12,
        alias="WORKER_SLOTS",
        ge=1,
        le=64,
        description="Jobs in a worker's hands at most: one executes, one waits in ComfyUI's queue, "
        "the others are being stored.",
    )
    max_attempts: int = Field(
        3,
        alias="JOB_MAX_ATTEMPTS",
        ge=1,
        description="Attempts that a job gets when transient errors end them.",
    )
    workflow_max_bytes: int = Field(
        10 * 1024 * 1024,
        alias="WORKFLOW_MAX_BYTES",
        ge=1024,
        description="Size of a workflow as JSON, in bytes, above which a job is refused.",
    )
    inputs_max_bytes: int = Field(
        100 * 1024 * 1024,
        alias="INPUT_MAX_BYTES",
        ge=1024,
        description="Size of one input file in bytes above which a job is refused.",
    )
    inputs_timeout_seconds: float = Field(
        60.0,
        alias="INPUT_TIMEOUT_SECONDS",
        gt=0,
        le=_MOST_SECONDS,
        description="Seconds for all of the fetch of an input from the web, redirects included.",
    )
    input_buckets: Annotated[_Separated, AfterValidator(lists.buckets)] = Field(
        (),
        alias="INPUT_BUCKETS",
        description="Buckets beside the workers' own that inputs may come from, separated by "
        "commas.",
    )
    input_allow_hosts: Annotated[_Separated, AfterValidator(lists.hosts)] = Field(
        (),
        alias="INPUT_ALLOW_HOSTS",
        description="Hosts that inputs may come from though they are not public, also by http: "
        "names, addresses or networks, separated by commas.",
    )
    max_crashes: int = Field(
        3,
        alias="JOB_MAX_CRASHES",
        ge=1,
        description="How often a job may take its worker or ComfyUI down before it goes to the "
        "dead letters.",
    )
    s3_patience_seconds: float = Field(
        900.0,
        alias="S3_PATIENCE_SECONDS",
        ge=0,
        le=_MOST_SECONDS,
        description="Seconds for which an upload is tried again before the job is handed on.",
    )
    stall_seconds: float = Field(
        600.0,
        alias="STALL_SECONDS",
        gt=0,
        le=_MOST_SECONDS,
        description="Seconds without a sign of life from ComfyUI after which a prompt is stopped.",
    )
    warm_wait_seconds: float = Field(
        30.0,
        alias="WARM_WAIT_SECONDS",
        ge=0,
        le=_MOST_SECONDS,
        description="Seconds that a job waits at most for a server which has its models loaded "
        "before another one loads them; 0: jobs go to whichever server is next.",
    )
    shutdown_grace_seconds: float = Field(
        15.0,
        alias="SHUTDOWN_GRACE_SECONDS",
        ge=0,
        le=_MOST_SECONDS,
        description="Seconds that running jobs have to end after SIGTERM before they are given "
        "back.",
    )

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = Field(
        "INFO", alias="LOG_LEVEL", description="What a worker logs; `-l` on its command line wins."
    )

    @field_validator("broker_url")
    @classmethod
    def _known_broker(cls, value: SecretStr) -> SecretStr:
        scheme, separator, _ = value.get_secret_value().partition("://")
        if scheme not in _BROKERS or not separator or not _has_valid_port(value):
            raise ValueError("a redis:// or rediss:// URL such as redis://host:6379/0")
        return value

    @field_validator("result_backend")
    @classmethod
    def _backend_url(cls, value: SecretStr) -> SecretStr:
        if "://" not in value.get_secret_value():
            raise ValueError("a URL of a Celery result backend such as redis://host:6379/0")
        return value

    @field_validator("comfyui_url", "s3_endpoint_url")
    @classmethod
    def _http_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            parts = urlsplit(value)
            usable = parts.scheme in _HTTP and parts.hostname and parts.port != 0
            usable = usable and not parts.query and not parts.fragment
        except ValueError:
            usable = False
        if not usable:
            raise ValueError("an http:// or https:// URL with a host, without query or fragment")
        return value.rstrip("/")

    @field_validator("comfyui_url")
    @classmethod
    def _no_credentials(cls, value: str) -> str:
        # The base URL stands in results, logs and metrics, so it must hold no secret.
        if "@" in urlsplit(value).netloc:
            raise ValueError("a URL without user and password; put them into COMFYUI_HEADERS")
        return value

    @field_validator("comfyui_headers", mode="before")
    @classmethod
    def _json_headers(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            headers = json.loads(value)
        except ValueError:
            headers = None
        if not isinstance(headers, dict) or not all(isinstance(v, str) for v in headers.values()):
            raise ValueError('a JSON object of strings such as {"Authorization": "Bearer ..."}')
        if not all(_TOKEN.fullmatch(name) and _is_value(v) for name, v in headers.items()):
            raise ValueError("names of HTTP headers, and values without line breaks")
        return headers

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper_case(cls, value: Any) -> Any:
        return value.upper() if isinstance(value, str) else value

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

    @model_validator(mode="before")
    @classmethod
    def _backend_follows_broker(cls, values: Any) -> Any:
        # One Redis is the common case: naming it once is enough.
        if isinstance(values, dict) and "CELERY_RESULT_BACKEND" not in values:
            broker = values.get("CELERY_BROKER_URL", "")
            if broker:
                values = {**values, "CELERY_RESULT_BACKEND": broker}
        return values

    @property
    def ledger_url(self) -> str:
        """The Redis server on which workers agree about jobs."""
        # Celery also takes the names of Python's ssl module, the Redis client does not.
        url = self.broker_url.get_secret_value()
        return re.sub(r"(?<=ssl_cert_reqs=)CERT_(\w+)", lambda found: found.group(1).lower(), url)

    def masked(self) -> dict[str, str | None]:
        """The effective values by variable name, every secret masked."""
        return {
            field.alias or name: _shown(getattr(self, name))
            for name, field in type(self).model_fields.items()
        }

    def require_worker(self) -> "Settings":
        """Return these settings if a worker can run on them.

        Raises:
            SettingsError: something that only workers need is missing.
        """
        if not self.s3_bucket:
            raise SettingsError(
                "S3_BUCKET: found nothing, expected the name of the bucket that receives outputs"
            )
        return self


@cache
def load() -> Settings:
    """Read the environment once and return what it says.

    Raises:
        SettingsError: a variable has a wrong value; names variable, found and expected.
    """
    try:
        return Settings()
    except ValidationError as error:
        raise SettingsError("\n".join(_sentence(e) for e in error.errors())) from None


def _has_valid_port(url: SecretStr) -> bool:
    try:
        return urlsplit(url.get_secret_value()).port != 0
    except ValueError:
        return False


def _is_value(value: str) -> bool:
    return value.isprintable() and value == value.strip() and value.isascii()


def without_password(url: str) -> str:
    """The URL, or Celery's list of them joined by semicolons, with each secret masked.

    Not by parsing: a password with a slash in it is no valid URL, and still a password.
    """
    if ";" in url:
        return ";".join(without_password(one) for one in url.split(";"))
    scheme, separator, rest = url.partition("://") if "://" in url else ("", "", url)
    credentials, at, place = rest.rpartition("@")
    user = f"{credentials.partition(':')[0]}:{MASK}@" if at else ""
    path, question, query = place.partition("?")
    return scheme + separator + user + path + question + re.sub(r"=[^&]*", f"={MASK}", query)


def _shown(value: Any) -> str | None:
    match value:
        case None | "" | ():
            return None
        case tuple():
            return ",".join(value)
        case SecretStr():
            return without_password(value.get_secret_value())
        case dict():
            return json.dumps(dict.fromkeys(value, MASK)) if value else None
        case _:
            return without_password(str(value))


def _sentence(error: Any) -> str:
    variable = str(error["loc"][0]) if error["loc"] else "settings"
    found = MASK if variable == "COMFYUI_HEADERS" else without_password(str(error["input"]))
    expected = error["msg"].removeprefix("Value error, ")
    expected = expected.removeprefix("Input should be ")
    return f"{variable}: found {found!r}, expected {expected}"
