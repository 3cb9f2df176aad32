"""The ComfyUI server that a worker drives, and how it is asked."""

import json
import re
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, Field, SecretStr, field_validator
from pydantic_settings import NoDecode

from settings.bounds import MOST_SECONDS
from settings.urls import http_url

# RFC 9110, 5.6.2.
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class ComfyUI(BaseModel):
    """Settings of the ComfyUI server."""

    comfyui_url: Annotated[str, AfterValidator(http_url)] = Field(
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


def _is_value(value: str) -> bool:
    return value.isprintable() and value == value.strip() and value.isascii()
