"""Spans made of a job's events: the job in a worker's hands, its attempt, stages, nodes, files."""

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from heapq import nlargest
from time import time
from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace import (
    Span,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    format_trace_id,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from settings.celery import QUEUE
from tasks.errors import JobError
from tasks.request import label
from workers.logs.context import note
from workers.observing import (
    AttemptBegan,
    AttemptEnded,
    Event,
    FileStored,
    JobEnded,
    JobLeft,
    JobRefused,
    JobTaken,
    NodeExecution,
    NodesExecuted,
    StageEnded,
)
from workers.tracing.ids import JobTraceIds

# Of an attempt's nodes so many have spans: those that took longest.
MOST_NODES = 100

_W3C = ("traceparent", "tracestate")
_NEXT = {"staging": "executing", "executing": "uploading", "uploading": "committing"}


@dataclass
class _Open:
    """The spans of a job that have not ended."""

    job: Span
    attempt: Span | None = None
    stage: Span | None = None


# Of the thread that works for the job, and of those that it has others work in. So whatever
# becomes of a job, no more is left of it than a thread has.
_open: ContextVar[_Open | None] = ContextVar("comfyfleet_spans", default=None)


class Spans:
    """Makes spans of events. Thread-safe."""

    def __init__(self, tracer: Tracer, ids: JobTraceIds, bucket: str) -> None:
        """Take what makes spans.

        Args:
            tracer: OpenTelemetry's.
            ids: the tracer's.
            bucket: where files are stored.
        """
        self._tracer = tracer
        self._ids = ids
        self._bucket = bucket

    def observe(self, event: Event) -> None:
        """Begin and end spans as an event says."""
        if isinstance(event, JobTaken):
            self._take(event)
        elif isinstance(event, JobRefused):
            self._tell_refused(event)
        elif (now := _open.get()) is not None:
            self._go_on(now, event)

    def _take(self, event: JobTaken) -> None:
        job = self._begin_job(event, at=event.taken_at)
        queued = max(0.0, event.taken_at - event.enqueued_at)
        job.set_attribute("comfyfleet.queued_seconds", queued)
        job.set_attribute("comfyfleet.redelivered", event.redelivered)
        _open.set(_Open(job))

    def _tell_refused(self, event: JobRefused) -> None:
        job = self._begin_job(event, at=time())
        job.set_attribute("comfyfleet.outcome", "failed")
        _fail(job, event.error)
        job.end()

    def _begin_job(self, event: JobTaken | JobRefused, *, at: float) -> Span:
        with self._ids.of(event.job_id):
            job = self._begin(
                f"process {QUEUE}",
                _producer(event.headers),
                {
                    "messaging.system": "celery",
                    "messaging.operation.name": "process",
                    "messaging.operation.type": "process",
                    "messaging.destination.name": QUEUE,
                    "messaging.message.id": event.job_id,
                },
                at=at,
                kind=SpanKind.CONSUMER,
            )
        if job.is_recording():
            note(trace_id=format_trace_id(job.get_span_context().trace_id))
        return job

    def _go_on(self, now: _Open, event: Event) -> None:
        match event:
            case AttemptBegan():
                self._begin_attempt(now, event)
            case NodesExecuted():
                for node in nlargest(MOST_NODES, event.nodes, key=lambda one: one.seconds):
                    self._tell_node(now, node)
            case StageEnded():
                self._end_stage(now, event)
            case FileStored():
                self._tell_file(now, event)
            case AttemptEnded():
                _end_attempt(now, event.error)
            case JobEnded():
                now.job.set_attribute("comfyfleet.outcome", event.outcome)
                if event.outcome == "failed":
                    _fail(now.job, event.error)
            case JobLeft():
                _end_attempt(now, None)
                now.job.end()
                _open.set(None)

    def _begin_attempt(self, now: _Open, event: AttemptBegan) -> None:
        at = time()
        known = {
            "comfyfleet.attempt": event.number,
            "comfyfleet.prompt_id": event.prompt_id,
            "comfyfleet.instance": event.instance,
            "comfyfleet.start": event.start,
        }
        now.attempt = self._begin("attempt", _within(now.job), known, at=at)
        now.stage = self._begin("staging", _within(now.attempt), {}, at=at)

    def _end_stage(self, now: _Open, event: StageEnded) -> None:
        if now.stage is None or now.attempt is None:
            return
        if event.stage == "uploading":
            now.stage.set_attribute("comfyfleet.files", event.files)
        now.stage.end(_nanoseconds(event.ended_at))
        following = _NEXT.get(event.stage)
        now.stage = (
            self._begin(following, _within(now.attempt), {}, at=event.ended_at)
            if following is not None
            else None
        )

    def _tell_node(self, now: _Open, node: NodeExecution) -> None:
        if now.stage is None:
            return
        known = {"comfyfleet.node_id": node.node_id, "comfyfleet.class_type": node.class_type}
        span = self._begin(
            f"node {label(str(node.class_type or node.node_id), 100)}",
            _within(now.stage),
            known,
            at=node.began_at,
        )
        span.end(_nanoseconds(node.began_at + node.seconds))

    def _tell_file(self, now: _Open, event: FileStored) -> None:
        if (attempt := now.attempt) is None:
            return
        known = {
            "aws.s3.bucket": self._bucket,
            "aws.s3.key": event.key,
            "comfyfleet.node_id": event.node_id,
            "comfyfleet.size_bytes": event.size_bytes,
        }
        began_at = event.ended_at - event.seconds
        # It is stored while others execute: the stage of uploading is what is waited for then.
        span = self._begin("store file", _within(attempt), known, at=began_at, kind=SpanKind.CLIENT)
        span.end(_nanoseconds(event.ended_at))

    def _begin(
        self,
        name: str,
        parent: Context,
        known: Mapping[str, Any],
        *,
        at: float,
        kind: SpanKind = SpanKind.INTERNAL,
    ) -> Span:
        attributes = {key: _plain(value) for key, value in known.items() if value is not None}
        return self._tracer.start_span(
            name, parent, kind=kind, attributes=attributes, start_time=_nanoseconds(at)
        )


def _producer(headers: Mapping[str, Any]) -> Context:
    """The span that has sent a message, as its headers tell, whatever else they hold."""
    given = {name: headers[name] for name in _W3C if isinstance(headers.get(name), str)}
    return TraceContextTextMapPropagator().extract(given, Context())


def _within(span: Span) -> Context:
    return set_span_in_context(span, Context())


def _end_attempt(now: _Open, error: JobError | None) -> None:
    for span in (now.stage, now.attempt):
        if span is not None:
            if error is not None:
                _fail(span, error)
            span.end()
    now.stage = now.attempt = None


def _fail(span: Span, error: JobError | None) -> None:
    span.set_attribute("error.type", type(error).__name__)
    span.set_status(Status(StatusCode.ERROR, _plain(str(error))))


def _plain(value: Any) -> Any:
    # A text without an encoding would cost all spans that are sent with it.
    return value.encode("utf-8", "replace").decode()[:1000] if isinstance(value, str) else value


def _nanoseconds(at: float) -> int:
    return int(at * 1_000_000_000)
