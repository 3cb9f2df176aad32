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
        redis_urls.checked(value.get_secret_value())
        return value

    @field_validator("result_backend")
    @classmethod
    def _backend_url(cls, value: SecretStr) -> SecretStr:
        url = value.get_secret_value()
        if "://" not in url:
            raise ValueError("a URL of a Celery result backend such as redis://host:6379/0")
        if url.partition("://")[0] in redis_urls.SCHEMES:
            redis_urls.checked(url)
        return value

    @field_validator("sentinel_master_name")
    @classmethod
    def _named_for_sentinels(cls, value: str, info: ValidationInfo) -> str:
        urls = (info.data.get("broker_url"), info.data.get("result_backend"))
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
                values = {**values, "CELERY_RESULT_BACKEND": broker}
        return values

    @property
    def ledger_url(self) -> str:
        """The Redis server on which workers agree about jobs, for `workers.ledger.connection`."""
        return self._for_our_client(self.broker_url)

    @property
    def results_url(self) -> str | None:
        """The Redis server that keeps results, for the same; None if another kind of store does."""
        scheme = self.result_backend.get_secret_value().partition("://")[0]
        is_redis = scheme in redis_urls.SCHEMES
        return self._for_our_client(self.result_backend) if is_redis else None

    def _for_our_client(self, url: SecretStr) -> str:
        password = self.sentinel_password
        return redis_urls.for_our_client(
            url.get_secret_value(),
            master_name=self.sentinel_master_name,
            username=self.sentinel_username,
            password=password.get_secret_value() if password else None,
        )
