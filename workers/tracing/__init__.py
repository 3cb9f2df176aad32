"""Traces of jobs, by OpenTelemetry: only where that is installed, and somewhere to send them to."""

import logging
from typing import Protocol

from settings import Settings
from settings.masking import shown
from settings.urls import http_url
from workers.observing import Event

logger = logging.getLogger(__name__)


class Traces(Protocol):
    """Makes a trace of what happens to jobs."""

    def start(self) -> None:
        """Begin to send spans."""

    def observe(self, event: Event) -> None:
        """Take an event into the trace of its job."""

    def close(self) -> None:
        """Send what is left, if that does not take long."""


class NoTraces:
    """Makes none, and says why where that may be a surprise."""

    def __init__(self, reason: str | None = None) -> None:
        """Say why there are none though they are wanted, if they are."""
        self._reason = reason

    def start(self) -> None:
        """Log the reason."""
        if self._reason is not None:
            logger.warning("no traces: %s", self._reason)

    def observe(self, event: Event) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def traces(settings: Settings, worker: str) -> Traces:
    """What makes this worker's traces; nothing is started yet."""
    endpoint = settings.otlp_traces_endpoint or settings.otlp_endpoint
    if endpoint is None:
        return NoTraces()
    try:
        http_url(endpoint)
    except ValueError as error:
        return NoTraces(f"the OTLP endpoint is {shown(endpoint)!r}, expected {error}")
    try:
        from workers.tracing.telemetry import Telemetry  # noqa: PLC0415  # an extra
    except ImportError as error:
        return NoTraces(
            f"there is an OTLP endpoint and {error.name} is not installed; "
            "install comfyfleet with its extra: comfyfleet[otel]"
        )
    return Telemetry(worker, settings.s3_bucket or "")
