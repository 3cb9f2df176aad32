"""Where jobs wait and results stay: broker, result backend, ledger."""

import re
from typing import Any

from pydantic import BaseModel, Field, SecretStr, field_validator, model_validator

from settings.urls import has_valid_port

_BROKERS = ("redis", "rediss")


class Broker(BaseModel):
    """Settings of broker and result backend."""

    broker_url: SecretStr = Field(
        SecretStr("redis://127.0.0.1:6379/0"),
        alias="CELERY_BROKER_URL",
        description="Broker that carries the jobs.",
    )
    result_backend: SecretStr = Field(
        SecretStr("redis://127.0.0.1:6379/0"),
        alias="CELERY_RESULT_BACKEND",
        description="Result backend that keeps states, progress and results; unset: the broker, "
        "if that is a Redis.",
    )
    result_expires_seconds: int = Field(
        86_400,
        alias="RESULT_EXPIRES",
        ge=60,
        description="Seconds a result stays in the result backend.",
    )

    @field_validator("broker_url")
    @classmethod
    def _known_broker(cls, value: SecretStr) -> SecretStr:
        scheme, separator, _ = value.get_secret_value().partition("://")
        if scheme not in _BROKERS or not separator or not has_valid_port(value.get_secret_value()):
            raise ValueError("a redis:// or rediss:// URL such as redis://host:6379/0")
        return value

    @field_validator("result_backend")
    @classmethod
    def _backend_url(cls, value: SecretStr) -> SecretStr:
        if "://" not in value.get_secret_value():
            raise ValueError("a URL of a Celery result backend such as redis://host:6379/0")
        return value

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
