"""The ComfyUI server that a worker drives, and how it is asked."""

import json
import re
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import NoDecode

from settings.bounds import MOST_SECONDS
from settings.lists import separated
from settings.urls import canonical, http_url

# RFC 9110, 5.6.2.
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def _server_url(value: str) -> str:
    url = str(http_url(value))
    # The base URL stands in results, logs and metrics, so it must hold no secret.
    if "@" in urlsplit(url).netloc:
        raise ValueError("a URL without user and password; put them into COMFYUI_HEADERS")
    return url


def _separated_urls(value: Any) -> Any:
    urls = separated(value)
    if isinstance(value, str) and not urls:
        raise ValueError("URLs separated by commas")
    return urls


ServerUrl = Annotated[str, AfterValidator(_server_url)]
ServerUrls = Annotated[tuple[ServerUrl, ...], NoDecode, BeforeValidator(_separated_urls)]


class ComfyUI(BaseModel):
    """Settings of the ComfyUI server."""

    comfyui_url: ServerUrl = Field(
        "http://127.0.0.1:8188",
        alias="COMFYUI_URL",
        description="Base URL of the one ComfyUI server that this worker drives. Beside "
        "`COMFYUI_URLS` one of those: the worker tries it first.",
    )
    comfyui_urls: ServerUrls = Field(
        (),
        alias="COMFYUI_URLS",
        description="Base URLs of several ComfyUI servers, separated by commas: each worker takes "
        "one that no other worker has.",
    )
    comfyui_shared: bool = Field(
        False,
        alias="COMFYUI_SHARED",
        description="Whether several workers may drive the server that `COMFYUI_URL` names; "
        "otherwise all but one wait until that is gone.",
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
        le=MOST_SECONDS,
        description="Seconds to wait for a connection to ComfyUI.",
    )
    comfyui_read_timeout_seconds: float = Field(
        60.0,
        alias="COMFYUI_READ_TIMEOUT_SECONDS",
        gt=0,
        le=MOST_SECONDS,
        description="Seconds to wait for the next bytes of an answer from ComfyUI.",
    )
    stall_seconds: float = Field(
        600.0,
        alias="STALL_SECONDS",
        gt=0,
        le=MOST_SECONDS,
        description="Seconds without a sign of life from ComfyUI after which a prompt is stopped.",
    )

    @property
    def own_comfyui_url(self) -> str | None:
        """The server that the environment names; None if it names none."""
        return self.comfyui_url if "comfyui_url" in self.model_fields_set else None

    @model_validator(mode="before")
    @classmethod
    def _url_follows_urls(cls, values: Any) -> Any:
        # Where one server is meant it is the first one, until a worker has taken another.
        if isinstance(values, dict) and "COMFYUI_URL" not in values:
            first = next(iter(separated(values.get("COMFYUI_URLS", ()))), None)
            if first is not None and _is_server_url(first):
                values = {**values, "COMFYUI_URL": first}
        return values

    @field_validator("comfyui_urls")
    @classmethod
    def _each_once(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        servers = [canonical(url) for url in value]
        if twice := [
            url for url, one in zip(value, servers, strict=True) if servers.count(one) > 1
        ]:
            raise ValueError(f"each server once; these are the same: {', '.join(twice)}")
        url = info.data.get("comfyui_url")
        if value and url is not None and canonical(url) not in servers:
            raise ValueError(f"COMFYUI_URL ({url}) among them, or no COMFYUI_URL")
        return value

    @field_validator("comfyui_shared")
    @classmethod
    def _shared_is_one(cls, value: bool, info: ValidationInfo) -> bool:
        if value and len(info.data.get("comfyui_urls", ())) > 1:
            raise ValueError(
                "false beside several COMFYUI_URLS, of which each worker takes one; "
                "name the server to be shared in COMFYUI_URL alone"
            )
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

    @property
    def comfyui_servers(self) -> tuple[str, ...]:
        """The servers of which a worker drives one, that to be tried first first."""
        first = canonical(self.comfyui_url)
        others = [url for url in self.comfyui_urls if canonical(url) != first]
        return (self.comfyui_url, *others)


def _is_server_url(value: str) -> bool:
    try:
        _server_url(value)
    except ValueError:
        return False
    return True


def _is_value(value: str) -> bool:
    return value.isprintable() and value == value.strip() and value.isascii()
