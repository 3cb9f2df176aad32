"""Where jobs wait and results stay: broker, result backend, ledger."""

from typing import Any

from pydantic import (
    BaseModel,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from settings import redis_urls
from settings.errors import SettingsError
from settings.urls import has_valid_port

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

    sentinel_master_name: str = Field(
        "",
        alias="SENTINEL_MASTER_NAME",
        validate_default=True,
        description="Name under which the sentinels of `sentinel://` URLs know the master.",
    )
    sentinel_username: str | None = Field(
        None,
        alias="SENTINEL_USERNAME",
        description="User at the sentinels; that at the servers stands in the URLs.",
    )
    sentinel_password: SecretStr | None = Field(
        None,
        alias="SENTINEL_PASSWORD",
        description="Password at the sentinels; that at the servers stands in the URLs.",
    )

    @field_validator("broker_url")
    @classmethod
    def _known_broker(cls, value: SecretStr) -> SecretStr:
        nodes = value.get_secret_value().split(";")
        schemes = {one.partition("://")[0] for one in nodes}
        if not schemes & set(_RABBITMQ):
            if not schemes & set(redis_urls.SCHEMES):
                raise ValueError(
                    "a redis://, rediss:// or sentinel:// URL such as redis://host:6379/0, or an "
                    "amqp:// or amqps:// URL such as amqp://user:password@host:5672/vhost"
                )
            redis_urls.checked(value.get_secret_value())
        elif not all(_is_rabbitmq(one) and has_valid_port(one) for one in nodes):
            raise ValueError(
                "amqp:// or amqps:// URLs such as amqp://user:password@host:5672/vhost, separated "
                "by semicolons"
            )
        return value

    @field_validator("result_backend")
    @classmethod
    def _backend_url(cls, value: SecretStr) -> SecretStr:
        url = value.get_secret_value()
        if "://" not in url:
            raise ValueError(
                "a URL of a Celery result backend such as redis://host:6379/0 (RabbitMQ is none)"
            )
        if _is_redis(url):
            redis_urls.checked(url)
        return value

    @field_validator("ledger")
    @classmethod
    def _ledger_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and value.get_secret_value():
            redis_urls.checked(value.get_secret_value())
        return value

    @field_validator("sentinel_master_name")
    @classmethod
    def _named_for_sentinels(cls, value: str, info: ValidationInfo) -> str:
        urls = [info.data.get(name) for name in ("broker_url", "result_backend", "ledger")]
        if not value and any(
            url and redis_urls.is_sentinel(url.get_secret_value()) for url in urls
        ):
            raise ValueError(
                "the NAME of `sentinel monitor NAME ...`, as there are sentinel:// URLs"
            )
        return value

    @model_validator(mode="before")
    @classmethod
    def _backend_follows_broker(cls, values: Any) -> Any:
        # One Redis is the common case: naming it once is enough.
        if isinstance(values, dict) and "CELERY_RESULT_BACKEND" not in values:
            broker = values.get("CELERY_BROKER_URL", "")
            if broker:
                # RabbitMQ keeps no results: without another one this is refused as nothing.
                on_redis = broker if not _is_rabbitmq(broker) else ""
                backend = on_redis or values.get("LEDGER_URL", "")
                values = {**values, "CELERY_RESULT_BACKEND": backend}
        return values

    @property
    def on_rabbitmq(self) -> bool:
        """Whether the broker is RabbitMQ, and not a Redis."""
        return _is_rabbitmq(self.broker_url.get_secret_value())

    @property
    def ledger_url(self) -> str:
        """The Redis server on which workers agree about jobs, for `workers.ledger.connection`.

        Raises:
            SettingsError: no setting names one, or two name two.
        """
        _, url = self._ledger()
        return self._for_our_client(url)

    @property
    def ledger_variable(self) -> str:
        """The name of the variable that names the ledger's server.

        Raises:
            SettingsError: no setting names one, or two name two.
        """
        variable, _ = self._ledger()
        return variable

    @property
    def results_url(self) -> str | None:
        """The Redis server that keeps results, for the same; None if another kind of store does."""
        url = self.result_backend.get_secret_value()
        return self._for_our_client(url) if _is_redis(url) else None

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

    def _for_our_client(self, url: str) -> str:
        password = self.sentinel_password
        return redis_urls.for_our_client(
            url,
            master_name=self.sentinel_master_name,
            username=self.sentinel_username,
            password=password.get_secret_value() if password else None,
        )


def _is_redis(url: str) -> bool:
    return url.partition("://")[0] in redis_urls.SCHEMES


def _is_rabbitmq(url: str) -> bool:
    scheme, separator, _ = url.partition("://")
    return bool(separator) and scheme in _RABBITMQ
