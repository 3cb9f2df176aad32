"""Where jobs wait and results stay: broker, result backend, ledger."""

import re
from typing import Any

from pydantic import BaseModel, Field, SecretStr, field_validator, model_validator

from settings.errors import SettingsError
from settings.urls import has_valid_port

_REDIS = ("redis", "rediss")
_RABBITMQ = ("amqp", "amqps")


class Broker(BaseModel):
    """Settings of broker, result backend and ledger."""

    broker_url: SecretStr = Field(
        SecretStr("redis://127.0.0.1:6379/0"),
        alias="CELERY_BROKER_URL",
        description="Broker that carries the jobs: a Redis, or RabbitMQ as amqp:// or amqps://, "
        "of which several nodes are separated by semicolons.",
    )
    result_backend: SecretStr = Field(
        SecretStr("redis://127.0.0.1:6379/0"),
        alias="CELERY_RESULT_BACKEND",
        description="Result backend that keeps states, progress and results; unset: the broker, "
        "if that is a Redis, else `LEDGER_URL`.",
    )
    ledger: SecretStr | None = Field(
        None,
        alias="LEDGER_URL",
        description="Redis on which workers agree about jobs where the broker is RabbitMQ; unset: "
        "the result backend, if that is a Redis. A broker that is a Redis is it itself.",
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
        url = value.get_secret_value()
        nodes = url.split(";")
        is_rabbitmq = all(_has_scheme(one, _RABBITMQ) and has_valid_port(one) for one in nodes)
        is_redis = _is_redis(url) and has_valid_port(url) and len(nodes) == 1
        if not is_rabbitmq and not is_redis:
            raise ValueError(
                "a redis:// or rediss:// URL such as redis://host:6379/0, or an amqp:// or "
                "amqps:// URL such as amqp://user:password@host:5672/vhost"
            )
        return value

    @field_validator("result_backend")
    @classmethod
    def _backend_url(cls, value: SecretStr) -> SecretStr:
        if "://" not in value.get_secret_value():
            raise ValueError(
                "a URL of a Celery result backend such as redis://host:6379/0 (RabbitMQ is none)"
            )
        return value

    @field_validator("ledger")
    @classmethod
    def _ledger_url(cls, value: SecretStr | None) -> SecretStr | None:
        url = value.get_secret_value() if value is not None else ""
        if url and not (_is_redis(url) and has_valid_port(url)):
            raise ValueError("a redis:// or rediss:// URL such as redis://host:6379/0")
        return value

    @model_validator(mode="before")
    @classmethod
    def _backend_follows_broker(cls, values: Any) -> Any:
        # One Redis is the common case: naming it once is enough.
        if isinstance(values, dict) and "CELERY_RESULT_BACKEND" not in values:
            broker = values.get("CELERY_BROKER_URL", "")
            if broker:
                # RabbitMQ keeps no results: without another one this is refused as nothing.
                on_redis = broker if not _has_scheme(broker, _RABBITMQ) else ""
                backend = on_redis or values.get("LEDGER_URL", "")
                values = {**values, "CELERY_RESULT_BACKEND": backend}
        return values

    @property
    def on_rabbitmq(self) -> bool:
        """Whether the broker is RabbitMQ, and not a Redis."""
        return _has_scheme(self.broker_url.get_secret_value(), _RABBITMQ)

    @property
    def ledger_url(self) -> str:
        """The Redis server on which workers agree about jobs.

        Raises:
            SettingsError: no setting names one, or two name two.
        """
        _, url = self._ledger()
        # Celery also takes the names of Python's ssl module, the Redis client does not.
        return re.sub(r"(?<=ssl_cert_reqs=)CERT_(\w+)", lambda found: found.group(1).lower(), url)

    @property
    def ledger_variable(self) -> str:
        """The name of the variable that names the ledger's server.

        Raises:
            SettingsError: no setting names one, or two name two.
        """
        variable, _ = self._ledger()
        return variable

    def _ledger(self) -> tuple[str, str]:
        ledger = self.ledger.get_secret_value() if self.ledger is not None else ""
        broker, backend = self.broker_url.get_secret_value(), self.result_backend.get_secret_value()
        if not self.on_rabbitmq:
            if ledger not in ("", broker):
                raise SettingsError(
                    "LEDGER_URL: found another server than CELERY_BROKER_URL, expected nothing, "
                    "as jobs in a Redis are given out by what workers have told it"
                )
            return "CELERY_BROKER_URL", broker
        if ledger:
            return "LEDGER_URL", ledger
        if _is_redis(backend):
            return "CELERY_RESULT_BACKEND", backend
        raise SettingsError(
            "LEDGER_URL: found nothing, expected the URL of a Redis such as redis://host:6379/0, "
            "as neither the broker nor the result backend is one"
        )


def _is_redis(url: str) -> bool:
    return _has_scheme(url, _REDIS)


def _has_scheme(url: str, schemes: tuple[str, ...]) -> bool:
    scheme, separator, _ = url.partition("://")
    return bool(separator) and scheme in schemes
