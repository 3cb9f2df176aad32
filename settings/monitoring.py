"""Where a worker tells how it is."""

import ipaddress

from pydantic import BaseModel, Field, field_validator


class Monitoring(BaseModel):
    """Settings of metrics and health."""

    metrics_port: int | None = Field(
        None,
        alias="METRICS_PORT",
        ge=1,
        le=65_535,
        description="Port of `/metrics`, `/livez` and `/readyz`; unset: there are none.",
    )
    metrics_host: str = Field(
        "0.0.0.0",  # noqa: S104  # Prometheus and probes come from elsewhere
        alias="METRICS_HOST",
        description="Address that METRICS_PORT is opened on; 127.0.0.1 for this host alone, :: for "
        "IPv6 too.",
    )

    @field_validator("metrics_host")
    @classmethod
    def _address(cls, value: str) -> str:
        try:
            ipaddress.ip_address(value)
        except ValueError:
            raise ValueError("an address of this host such as 0.0.0.0 or 127.0.0.1") from None
        return value
