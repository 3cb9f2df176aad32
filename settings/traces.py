"""Where traces go. OpenTelemetry's SDK reads these variables, and all its others, by itself."""

from pydantic import BaseModel, Field


class Traces(BaseModel):
    """Settings of traces; what is here only switches them on.

    Nothing is checked here: a producer may have these for exporters of its own.
    """

    otlp_endpoint: str | None = Field(
        None,
        alias="OTEL_EXPORTER_OTLP_ENDPOINT",
        description="Base URL of an OpenTelemetry collector that takes OTLP over HTTP, such as "
        "`http://collector:4318`; unset: no traces.",
    )
    otlp_traces_endpoint: str | None = Field(
        None,
        alias="OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        description="The URL for traces itself, with its path; wins over the one above.",
    )
