"""A job's lines and spans, over two workers: what is logged, and what a collector receives."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from opentelemetry.sdk.trace import TracerProvider

from sandbox.stack import Stack
from tasks import enqueue
from tests.faults.scenes import Fleet, executing, sampled, spoilt
from tests.integration.collector import Collector, Span, collecting
from tests.stack import bars

pytestmark = pytest.mark.integration

PAGE = Path(__file__).parents[2] / "docs" / "logs-and-traces.md"
STAGES = ["staging", "executing", "uploading", "committing"]


@dataclass(frozen=True)
class Told:
    """Of three jobs: all that two workers have logged, and the spans that they have sent."""

    lines: list[dict[str, Any]]
    collector: Collector
    # One that goes well, one that is tried again, one that goes on at another worker.
    good: dict[str, Any]
    retried: dict[str, Any]
    moved: dict[str, Any]
    # The producer's span around the last one.
    trace_id: str
    span_id: str

    def story(self, result: dict[str, Any]) -> list[dict[str, Any]]:
        """The lines of a job."""
        return [line for line in self.lines if line.get("job_id") == result["job_id"]]

    def spans(self, result: dict[str, Any]) -> list[Span]:
        """The spans of the trace that a job is in."""
        (trace,) = {
            span.trace_id
            for span in self.collector.spans
            if span.attributes.get("messaging.message.id") == result["job_id"]
        }
        return sorted(self.collector.of_trace(trace), key=lambda span: span.began_at)


@pytest.fixture(scope="module")
def told(stack: Stack) -> Iterator[Told]:
    with Fleet(stack) as fleet, collecting() as collector:
        server = fleet.server(step_seconds=0.02)
        settings = {"LOG_FORMAT": "json", "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
        first = fleet.worker(server, **settings)
        good = fleet.send(bars(1, seconds=1)).get(timeout=30)
        with spoilt(server, {"method": "POST", "path": "/prompt", "status": 503, "times": 1}):
            retried = fleet.send(bars(2)).get(timeout=30)

        producer = Celery(broker=fleet.valkey.url, backend=fleet.valkey.url)
        with TracerProvider().get_tracer("shop").start_as_current_span("order") as span:
            # Longer than the first worker takes to leave.
            job = enqueue(sampled(steps=200), celery=producer)
        executing(server, 3)
        first.stop()
        second = fleet.worker(server, **settings)
        moved = fleet.job(job.id).get(timeout=30)
        second.stop()
        producer.close()

        logged = [*first.log.read_text().splitlines(), *second.log.read_text().splitlines()]
        yield Told(
            # What is warned of before there are logs is none of them.
            lines=[json.loads(line) for line in logged if line.startswith("{")],
            collector=collector,
            good=good,
            retried=retried,
            moved=moved,
            trace_id=f"{span.get_span_context().trace_id:032x}",
            span_id=f"{span.get_span_context().span_id:016x}",
        )


def shape(text: str) -> str:
    """A text without what differs from one run to the next."""
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{32}", "ID", text)
    return re.sub(r"http://[\w.:-]+", "URL", re.sub(r"\d+\.\d+(?=[ ,)])", "N", text))


def test_a_job_that_goes_well_is_told_in_a_few_lines(told: Told) -> None:
    story = told.story(told.good)
    assert [shape(line["message"]) for line in story] == [
        "received after N s in the queue",
        "attempt 1 on URL submits prompt ID",
        "the server has the prompt after N s",
        "executed in N s",
        "1 file stored N s after that",
        "finished (seconds: queued N, staged N, executed N, uploaded N, total N)",
    ]
    result = told.good
    for line in story:
        assert (line["level"], line["attempt"]) == ("INFO", 1)
        assert (line["prompt_id"], line["instance"]) == (result["prompt_id"], result["instance"])
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["ts"])
    assert story[-1]["seconds"]["executed"] == result["timings"]["executed"]


def test_one_that_is_tried_again_in_less_than_ten(told: Told) -> None:
    story = told.story(told.retried)
    assert len(story) < 10
    assert [line["attempt"] for line in story] == [1, 1, 1, 2, 2, 2, 2, 2]
    (failed,) = (line for line in story if line["level"] == "WARNING")
    assert shape(failed["message"]).startswith("attempt 1 failed, again in N s: ComfyUI")
    assert failed["error"] == "ComfyUIUnavailableError"
    assert shape(story[3]["message"]) == "attempt 2 on URL submits prompt ID"
    assert "finished at attempt 2 (" in story[-1]["message"]


def test_one_that_moves_to_another_worker_too(told: Told) -> None:
    story = told.story(told.moved)
    assert len(story) < 10
    assert {line["trace_id"] for line in story} == {told.trace_id}
    assert "handed on: its worker was asked to end" in [line["message"] for line in story]


def test_what_celery_logs_has_the_same_form(told: Told) -> None:
    loggers = Counter(line["logger"] for line in told.lines)
    assert loggers["celery.apps.worker"] == 2
    assert loggers["celery.worker.strategy"] + loggers["celery.app.trace"] == 0


def test_the_page_shows_what_is_logged(told: Told) -> None:
    (shown,) = re.findall(r"^```json\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    documented = [json.loads(line) for line in shown.splitlines()]
    story = told.story(told.retried)
    assert [list(line) for line in documented] == [list(line) for line in story]
    for one, other in zip(documented, story, strict=True):
        assert shape(one["message"]) == shape(other["message"])


def test_a_job_is_one_trace_with_its_stages_nodes_and_files(told: Told) -> None:
    spans = told.spans(told.good)
    by_id = {span.span_id: span for span in spans}
    parents = {
        span.name: by_id[span.parent_id].name if span.parent_id in by_id else None for span in spans
    }
    assert len(spans) == len(parents)
    assert parents == {
        "process comfyui": None,
        "attempt": "process comfyui",
        **dict.fromkeys(STAGES, "attempt"),
        "node BarsRender": "executing",
        "node SaveImage": "executing",
        "store file": "attempt",
    }
    named = {span.name: span for span in spans}
    assert (named["process comfyui"].kind, named["store file"].kind) == (5, 3)
    assert named["process comfyui"].attributes["comfyfleet.outcome"] == "succeeded"
    assert named["attempt"].attributes["comfyfleet.prompt_id"] == told.good["prompt_id"]
    (output,) = told.good["outputs"]
    assert named["store file"].attributes["aws.s3.key"] == output["key"]
    assert named["store file"].attributes["aws.s3.bucket"] == output["bucket"]
    # As long as it was told to take, and in the attempt where it belongs.
    node, attempt = named["node BarsRender"], named["attempt"]
    assert 0.05 < node.ended_at - node.began_at < attempt.ended_at - attempt.began_at + 0.1
    assert {(span.service, span.failed) for span in spans} == {("comfyfleet", False)}


def test_attempts_at_one_worker_are_one_trace(told: Told) -> None:
    attempts = [span for span in told.spans(told.retried) if span.name == "attempt"]
    assert [span.attributes["comfyfleet.attempt"] for span in attempts] == [1, 2]
    assert [span.failed for span in attempts] == [True, False]
    assert attempts[0].attributes["error.type"] == "ComfyUIUnavailableError"
    (failed,) = (
        span
        for span in told.spans(told.retried)
        if span.failed and span.parent_id == attempts[0].span_id
    )
    assert failed.name == "staging"


def test_a_job_that_moves_is_in_its_producers_trace(told: Told) -> None:
    spans = told.spans(told.moved)
    jobs = [span for span in spans if span.name == "process comfyui"]
    assert {span.trace_id for span in spans} == {told.trace_id}
    assert [span.parent_id for span in jobs] == [told.span_id] * 2
    attempts = [span for span in spans if span.name == "attempt"]
    assert [span.parent_id for span in attempts] == [span.span_id for span in jobs]
    assert [span.attributes.get("comfyfleet.outcome") for span in jobs] == [None, "succeeded"]
