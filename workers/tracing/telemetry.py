"""OpenTelemetry's SDK as a worker uses it; the standard OTEL_ variables configure it."""

import logging
import threading
import time

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.util.re import parse_env_headers

from workers.observing import Event
from workers.tracing.ids import JobTraceIds
from workers.tracing.spans import Spans

logger = logging.getLogger(__name__)

# Seconds that the last spans have, so that no collector holds up a worker's end.
_FLUSH_SECONDS = 2.0
# Seconds between two lines about the same trouble with the collector.
_SELDOM_SECONDS = 60.0


class Telemetry:
    """Sends spans to a collector, in a thread of its own: no job ever waits for it."""

    def __init__(self, worker: str, bucket: str) -> None:
        """Prepare; `start` begins.

        Args:
            worker: its name.
            bucket: where files are stored.
        """
        self._worker = worker
        self._bucket = bucket
        self._provider: TracerProvider | None = None
        self._spans: Spans | None = None

    def start(self) -> None:
        """Begin to send; a worker that cannot be traced works all the same."""
        logging.getLogger(OTLPSpanExporter.__module__).addFilter(_Seldom())
        logging.getLogger(parse_env_headers.__module__).addFilter(_without_header)
        ids = JobTraceIds()
        try:
            provider = TracerProvider(
                resource=_resource(self._worker), id_generator=ids, shutdown_on_exit=False
            )
            provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        except Exception as error:  # noqa: BLE001  # of whatever a variable says
            logger.warning("no traces: an OTEL_ variable is wrong: %s", error)
            return
        self._provider = provider
        self._spans = Spans(provider.get_tracer("comfyfleet"), ids, self._bucket)

    def observe(self, event: Event) -> None:
        """Take an event into the trace of its job."""
        if self._spans is not None:
            self._spans.observe(event)

    def close(self) -> None:
        """Send what is left, if that does not take long."""
        if self._provider is None:
            return
        flushing = threading.Thread(target=self._provider.shutdown, daemon=True)
        flushing.start()
        flushing.join(_FLUSH_SECONDS)
        if flushing.is_alive():
            logger.warning("the last spans are lost: the collector does not take them")


class _Seldom(logging.Filter):
    """Lets the same line through once in a while: a collector may be away for days."""

    def __init__(self) -> None:
        super().__init__()
        self._told: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it has not been said just now."""
        now, what = time.monotonic(), str(record.msg)
        if now - self._told.get(what, float("-inf")) < _SELDOM_SECONDS:
            return False
        # The SDK's messages are few.
        self._told[what] = now
        return True


def _without_header(record: logging.LogRecord) -> bool:
    # What cannot be read as a header may hold a token all the same.
    if record.args:
        record.args = ("(not shown)",)
    return True


def _resource(worker: str) -> Resource:
    ours = Resource({"service.name": "comfyfleet", "service.instance.id": worker})
    # What the variables say of the service counts more.
    return Resource.create().merge(ours).merge(OTELResourceDetector().detect())
