"""Spans made of events, as an exporter in memory gets them."""

import logging
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from settings import Settings
from tasks.errors import InvalidRequestError, NodeFailedError, PromptLostError
from tasks.tracing import trace_headers
from workers import tracing
from workers.logs import context
from workers.observing import (
    AttemptBegan,
    AttemptEnded,
    Event,
    FileStored,
    JobEnded,
    JobLeft,
    JobRefused,
    JobSuppressed,
    JobTaken,
    NodeExecution,
    NodesExecuted,
    StageEnded,
)
from workers.tracing import NoTraces, spans, telemetry, traces
from workers.tracing.ids import JobTraceIds
from workers.tracing.spans import MOST_NODES, Spans
from workers.tracing.telemetry import Telemetry

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SENT = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "shop=1"}
BEGAN = AttemptBegan("a", 1, "p", "http://gpu:8188", "submit")


def taken(headers: Mapping[str, Any] | None = None, job_id: str = "a") -> JobTaken:
    return JobTaken(job_id, 100.0, 102.5, is_new=True, redelivered=False, headers=headers or {})


class Scene:
    """A worker whose spans are kept."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        ids = JobTraceIds()
        self.provider = TracerProvider(id_generator=ids, shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.spans = Spans(self.provider.get_tracer("x"), ids, "b")

    def see(self, *events: Event) -> list[ReadableSpan]:
        """All that has been made, once these events have come."""
        with context.about():
            for event in events:
                self.spans.observe(event)
        return list(self.exporter.get_finished_spans())

    def named(self, *events: Event) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self.see(*events)}


@pytest.fixture
def scene() -> Iterator[Scene]:
    yield Scene()
    assert spans._open.get() is None


def parent(span: ReadableSpan) -> int | None:
    return span.parent and span.parent.span_id


def own(span: ReadableSpan) -> int:
    return span.context.span_id


def test_a_job_goes_on_with_its_producers_trace(scene: Scene) -> None:
    (job,) = scene.see(taken(SENT), JobEnded("a", "succeeded"), JobLeft("a"))
    assert f"{job.context.trace_id:032x}" == TRACE
    assert f"{parent(job):016x}" == PARENT
    assert job.context.trace_state.to_header() == "shop=1"
    assert (job.name, job.kind) == ("process comfyui", SpanKind.CONSUMER)
    assert dict(job.attributes) == {
        "messaging.system": "celery",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "comfyui",
        "messaging.message.id": "a",
        "comfyfleet.queued_seconds": 2.5,
        "comfyfleet.redelivered": False,
        "comfyfleet.outcome": "succeeded",
    }
    assert job.start_time == 102_500_000_000


def test_without_one_all_takings_of_a_job_are_one_trace_and_no_others(scene: Scene) -> None:
    for job_id in ("a", "b"):
        scene.see(taken(job_id=job_id), JobLeft(job_id))
    *_, again = Scene().see(taken(job_id="a"), JobLeft("a"))
    first, other = (span.context.trace_id for span in scene.exporter.get_finished_spans())
    assert first == again.context.trace_id != other
    assert again.parent is None


@pytest.mark.parametrize(
    "headers",
    [
        {"traceparent": 7},
        {"traceparent": ["x"]},
        {"traceparent": "00-x"},
        {"traceparent": "00-" + "0" * 32 + "-" + "0" * 16 + "-01"},
        {"traceparent": "x" * 10**6},
        {**SENT, "traceparent": None},
    ],
)
def test_headers_of_another_form_are_none(scene: Scene, headers: dict[str, Any]) -> None:
    (job,) = scene.see(taken(headers), JobLeft("a"))
    assert job.parent is None


@given(st.text(), st.text())
def test_no_header_keeps_a_job_from_its_span(traceparent: str, tracestate: str) -> None:
    scene = Scene()
    given = {"traceparent": traceparent, "tracestate": tracestate}
    assert len(scene.see(taken(given), JobLeft("a"))) == 1
    (job,) = Scene().see(taken({**SENT, "tracestate": tracestate}), JobLeft("a"))
    assert f"{job.context.trace_id:032x}" == TRACE


def test_what_the_producer_does_not_record_is_not_recorded(scene: Scene) -> None:
    unsampled = {"traceparent": f"00-{TRACE}-{PARENT}-00"}
    assert scene.see(taken(unsampled), BEGAN, StageEnded("a", "staging", 1, 1), JobLeft("a")) == []


def test_stages_follow_each_other_in_their_attempt(scene: Scene) -> None:
    named = scene.named(
        taken(),
        BEGAN,
        StageEnded("a", "staging", 2000.0, 1.0),
        StageEnded("a", "executing", 2003.0, 3.0),
        StageEnded("a", "uploading", 2004.0, 1.0, files=2),
        StageEnded("a", "committing", 2004.5, 0.5),
        AttemptEnded("a", 1),
        JobLeft("a"),
    )
    attempt = named["attempt"]
    assert parent(attempt) == own(named["process comfyui"])
    assert dict(attempt.attributes) == {
        "comfyfleet.attempt": 1,
        "comfyfleet.prompt_id": "p",
        "comfyfleet.instance": "http://gpu:8188",
        "comfyfleet.start": "submit",
    }
    stages = [named[name] for name in ("staging", "executing", "uploading", "committing")]
    assert {parent(stage) for stage in stages} == {own(attempt)}
    assert [stage.end_time / 1e9 for stage in stages] == [2000.0, 2003.0, 2004.0, 2004.5]
    assert [stage.start_time / 1e9 for stage in stages[1:]] == [2000.0, 2003.0, 2004.0]
    assert stages[2].attributes["comfyfleet.files"] == 2
    assert len(named) == 6


def test_nodes_are_in_the_stage_in_which_they_execute(scene: Scene) -> None:
    nodes = (NodeExecution("1", "KSampler", 2000.5, 2.0), NodeExecution("9.1", None, 2002.5, 0.25))
    named = scene.named(
        taken(),
        BEGAN,
        StageEnded("a", "staging", 2000.0, 1.0),
        NodesExecuted("a", nodes),
        StageEnded("a", "executing", 2003.0, 3.0),
        JobLeft("a"),
    )
    node, unknown = named["node KSampler"], named["node 9.1"]
    assert {parent(node), parent(unknown)} == {own(named["executing"])}
    assert (node.start_time, node.end_time) == (2_000_500_000_000, 2_002_500_000_000)
    known = {"comfyfleet.node_id": "1", "comfyfleet.class_type": "KSampler"}
    assert dict(node.attributes) == known


def test_of_very_many_nodes_those_count_that_took_longest(scene: Scene) -> None:
    nodes = tuple(NodeExecution(str(n), "A", 2000.0, float(n)) for n in range(10_000))
    made = scene.see(taken(), BEGAN, NodesExecuted("a", nodes), JobLeft("a"))
    told = [int(one.attributes["comfyfleet.node_id"]) for one in made if one.name == "node A"]
    assert sorted(told) == list(range(10_000 - MOST_NODES, 10_000))


def test_files_are_put_into_the_store(scene: Scene) -> None:
    file = FileStored("a", "9", "a/1/9/0-x.png", 1234, ended_at=2002.0, seconds=0.5)
    named = scene.named(taken(), BEGAN, file, JobLeft("a"))
    put = named["store file"]
    assert (put.kind, parent(put)) == (SpanKind.CLIENT, own(named["attempt"]))
    assert (put.start_time, put.end_time) == (2_001_500_000_000, 2_002_000_000_000)
    assert dict(put.attributes) == {
        "aws.s3.bucket": "b",
        "aws.s3.key": "a/1/9/0-x.png",
        "comfyfleet.node_id": "9",
        "comfyfleet.size_bytes": 1234,
    }


def test_threads_that_store_for_a_job_tell_of_its_files(scene: Scene) -> None:
    file = FileStored("a", "9", "a/1/9/0-x.png", 1234, ended_at=2002.0, seconds=0.5)
    with ThreadPoolExecutor(1) as pool, context.about():
        scene.spans.observe(taken())
        scene.spans.observe(BEGAN)
        ours = copy_context()
        pool.submit(ours.run, scene.spans.observe, file).result()
        # Of another job's thread, and of one that comes too late.
        pool.submit(scene.spans.observe, file).result()
        scene.spans.observe(JobLeft("a"))
        pool.submit(ours.copy().run, scene.spans.observe, file).result()
    names = [span.name for span in scene.exporter.get_finished_spans()]
    assert names == ["store file", "staging", "attempt", "process comfyui"]


def test_an_attempt_that_fails_says_where_and_how(scene: Scene) -> None:
    named = scene.named(
        taken(),
        BEGAN,
        StageEnded("a", "staging", 2000.0, 1.0),
        AttemptEnded("a", 1, PromptLostError("it is gone"), again_in=1.0),
        JobLeft("a"),
    )
    for name in ("attempt", "executing"):
        span = named[name]
        assert span.status.status_code is StatusCode.ERROR
        assert span.status.description == "it is gone"
        assert span.attributes["error.type"] == "PromptLostError"
    # The job itself goes on.
    for name in ("process comfyui", "staging"):
        assert named[name].status.status_code is StatusCode.UNSET


@pytest.mark.parametrize("outcome", ["failed", "cancelled"])
def test_how_a_job_ends_is_said(scene: Scene, outcome: Any) -> None:
    error = NodeFailedError("no\ud800") if outcome == "failed" else None
    (job,) = scene.see(taken(), JobEnded("a", outcome, error), JobLeft("a"))
    assert job.attributes["comfyfleet.outcome"] == outcome
    assert job.attributes.get("error.type") == ("NodeFailedError" if error else None)
    assert (job.status.status_code is StatusCode.ERROR) is (error is not None)


def test_a_refused_job_has_a_span_in_its_producers_trace(scene: Scene) -> None:
    error = InvalidRequestError("unknown argument 'parms'")
    (job,) = scene.see(JobRefused("a", error, SENT), JobEnded("a", "failed", error))
    assert (f"{job.context.trace_id:032x}", f"{parent(job):016x}") == (TRACE, PARENT)
    assert (job.name, job.kind) == ("process comfyui", SpanKind.CONSUMER)
    assert job.attributes["messaging.message.id"] == "a"
    assert job.attributes["error.type"] == "InvalidRequestError"
    assert job.attributes["comfyfleet.outcome"] == "failed"
    assert (job.status.status_code, job.status.description) == (StatusCode.ERROR, str(error))


def test_the_line_of_a_refusal_names_its_trace(scene: Scene) -> None:
    with context.about(job_id="a"):
        scene.spans.observe(JobRefused("a", InvalidRequestError("x"), SENT))
        assert context.fields()["trace_id"] == TRACE


def test_whatever_a_job_is_called_its_spans_can_be_sent(scene: Scene) -> None:
    node = NodeExecution("1", "K\ud800\n" + "x" * 10**5, 1.0, 1.0)
    file = FileStored("a", "9", "\udfff", 1, 1.0, 1.0)
    headers = {"id": "\ud800"}
    events = (NodesExecuted("a", (node,)), file)
    made = scene.see(taken(headers, "\ud800"), BEGAN, *events, JobLeft("a"))
    assert len(encode_spans(made).SerializeToString()) < 10_000


def test_a_job_that_others_have_leaves_nothing(scene: Scene) -> None:
    assert scene.see(JobSuppressed("a", "held"), JobEnded("a", "failed"), JobLeft("a")) == []


def test_stages_without_an_attempt_are_none(scene: Scene) -> None:
    node = NodeExecution("1", "A", 1.0, 1.0)
    file = FileStored("a", "9", "k", 1, 1.0, 1.0)
    events = (StageEnded("a", "staging", 1.0, 1.0), NodesExecuted("a", (node,)), file)
    assert len(scene.see(taken(), *events, AttemptEnded("a", 1), JobLeft("a"))) == 1


def test_lines_of_the_log_name_the_trace(scene: Scene) -> None:
    with context.about(job_id="a"):
        scene.spans.observe(taken(SENT))
        assert context.fields() == {"job_id": "a", "trace_id": TRACE}
        scene.spans.observe(JobLeft("a"))


# The producer


def test_a_producers_span_goes_with_its_message() -> None:
    assert trace_headers() == {}
    with TracerProvider().get_tracer("shop").start_as_current_span("order") as span:
        headers = trace_headers()
    assert headers.keys() == {"traceparent"}
    assert headers["traceparent"].split("-")[1:3] == [
        f"{span.get_span_context().trace_id:032x}",
        f"{span.get_span_context().span_id:016x}",
    ]


def test_who_has_not_loaded_opentelemetry_pays_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "opentelemetry.trace")
    with TracerProvider().get_tracer("shop").start_as_current_span("order"):
        assert trace_headers() == {}


# Whether there are traces


def settings(**known: str) -> Settings:
    return Settings(S3_BUCKET="b", **known)  # type: ignore[arg-type]


WANTED = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}


def test_nobody_is_asked_for_traces(caplog: pytest.LogCaptureFixture) -> None:
    none = traces(settings(), "w")
    assert isinstance(none, NoTraces)
    none.start()
    none.observe(taken())
    none.close()
    assert caplog.records == []
    for variable in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        wanted = settings(**{variable: "http://collector:4318"})
        assert isinstance(traces(wanted, "w"), Telemetry)


def test_an_endpoint_that_is_none_is_said(caplog: pytest.LogCaptureFixture) -> None:
    traces(settings(OTEL_EXPORTER_OTLP_ENDPOINT="collector:4317"), "w").start()
    (record,) = caplog.records
    assert record.getMessage() == (
        "no traces: the OTLP endpoint is 'collector:4317', expected an http:// or https:// URL "
        "with a host, without query or fragment"
    )


def test_a_missing_extra_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr(tracing, "telemetry")
    monkeypatch.setitem(sys.modules, "workers.tracing.telemetry", None)
    traces(settings(**WANTED), "w").start()
    (record,) = caplog.records
    assert "there is an OTLP endpoint and" in record.getMessage()
    assert "comfyfleet[otel]" in record.getMessage()


def test_a_wrong_variable_costs_the_traces_and_not_the_worker(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "-1")
    broken = Telemetry("w", "b")
    broken.start()
    broken.observe(taken())
    broken.close()
    (record,) = caplog.records
    assert record.getMessage().startswith("no traces: an OTEL_ variable is wrong: ")


def test_a_header_that_cannot_be_read_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "Authorization: Bearer hidden")
    worker = Telemetry("w", "b")
    worker.start()
    worker.close()
    assert "Header format invalid" in caplog.text
    assert "hidden" not in caplog.text


def test_a_collector_that_does_not_answer_holds_up_no_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(telemetry, "_FLUSH_SECONDS", 0.0)
    worker, answered = Telemetry("w", "b"), threading.Event()
    worker._provider = type("Provider", (), {"shutdown": lambda _: answered.wait(30)})()
    worker.close()
    answered.set()
    assert "the last spans are lost" in caplog.text


def test_the_same_trouble_is_told_once_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 2.0, 59.0, 61.0])
    monkeypatch.setattr(telemetry.time, "monotonic", lambda: next(clock))
    seldom = telemetry._Seldom()
    said = [
        seldom.filter(logging.LogRecord("x", logging.WARNING, "x.py", 1, message, (), None))
        for message in ("away %s", "away %s", "refused", "away %s", "away %s")
    ]
    assert said == [True, False, True, False, True]


def test_the_variables_say_more_of_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = telemetry._resource("w").attributes
    assert (ours["service.name"], ours["service.instance.id"]) == ("comfyfleet", "w")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "renders")
    theirs = telemetry._resource("w").attributes
    assert (theirs["service.name"], theirs["service.instance.id"]) == ("renders", "w")
