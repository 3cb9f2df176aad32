"""Where traces go. OpenTelemetry's SDK reads these variables, and all its others, by itself."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field

from settings.urls import http_url


class Traces(BaseModel):
    """Settings of traces; what is here only switches them on."""

    otlp_endpoint: Annotated[str | None, AfterValidator(http_url)] = Field(
        None,
        alias="OTEL_EXPORTER_OTLP_ENDPOINT",
        description="Base URL of an OpenTelemetry collector that takes OTLP over HTTP, such as "
        "`http://collector:4318`; unset: no traces.",
    )
    otlp_traces_endpoint: Annotated[str | None, AfterValidator(http_url)] = Field(
        None,
        alias="OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        description="The URL for traces itself, with its path; wins over the one above.",
    )

    @property
    def traces_wanted(self) -> bool:
        """Whether there is somewhere for traces to go."""
        return bool(self.otlp_endpoint or self.otlp_traces_endpoint)
