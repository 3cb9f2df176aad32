"""Traces of jobs, by OpenTelemetry: only where that is installed, and somewhere to send them to."""

import logging
from typing import Protocol

from settings import Settings
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
    if not settings.traces_wanted:
        return NoTraces()
    try:
        from workers.tracing.telemetry import Telemetry  # noqa: PLC0415  # an extra
    except ImportError as error:
        return NoTraces(
            f"OTEL_EXPORTER_OTLP_ENDPOINT is set and {error.name} is not installed; "
            "install comfyfleet with its extra: comfyfleet[otel]"
        )
    return Telemetry(worker, settings.s3_bucket or "")
