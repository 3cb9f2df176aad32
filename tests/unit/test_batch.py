"""Batches: what is sent for each row, and what the handle makes of what the backend says."""

import base64
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import TimeoutError as CeleryTimeoutError
from kombu import Queue
from opentelemetry.sdk.trace import TracerProvider

from tasks import Batch, BatchProgress, JobResult, enqueue_batch, handle, sweep
from tasks.batch import job_id_of
from tasks.errors import (
    InvalidRequestError,
    InvalidWorkflowError,
    JobCancelledError,
    NodeFailedError,
)

WORKFLOW = {
    "1": {"class_type": "Render", "inputs": {"seed": 1, "text": "a", "of": ["2", 0]}},
    "2": {"class_type": "Load", "inputs": {"name": "x"}},
}
ROWS = [{"1.seed": 1}, {"1.seed": 2, "1.text": "b"}, {}]


@pytest.fixture
def app() -> Iterator[Celery]:
    with Celery(broker="memory://", backend="cache+memory://", set_as_current=False) as one:
        one.backend.client.cache.clear()
        yield one


def sent(app: Celery, name: str) -> list[Any]:
    """The messages on a queue, which is empty then."""
    with app.connection_for_read() as connection:
        queue = Queue(name, durable=True)(connection.default_channel)
        messages = []
        while (message := queue.get(no_ack=True, accept=["json"])) is not None:
            messages.append(message)
        return messages


def test_all_are_in_the_trace_of_whoever_enqueues_them(app: Celery) -> None:
    with TracerProvider().get_tracer("shop").start_as_current_span("order") as span:
        enqueue_batch(WORKFLOW, ROWS[:2], celery=app, queue="traced")
    traces = [message.headers["traceparent"].rpartition("-")[0] for message in sent(app, "traced")]
    context = span.get_span_context()
    assert traces == [f"00-{context.trace_id:032x}-{context.span_id:016x}"] * 2


def test_headers_of_ones_own_count_more(app: Celery) -> None:
    with TracerProvider().get_tracer("shop").start_as_current_span("order"):
        enqueue_batch(WORKFLOW, ROWS[:1], celery=app, queue="own", headers={"traceparent": "x"})
    (message,) = sent(app, "own")
    assert message.headers["traceparent"] == "x"


def result(job_id: str) -> dict[str, Any]:
    manifest = {"bucket": "b", "key": "k"}
    timings = dict.fromkeys(("queued", "staged", "executed", "uploaded", "total"), 0.0)
    made = JobResult(
        job_id=job_id,
        prompt_id="p",
        instance="i",
        worker="w",
        attempts=[],
        metadata={},
        outputs=[],
        manifest=manifest,  # type: ignore[arg-type]
        timings=timings,  # type: ignore[arg-type]
        values={},
    )
    return made.model_dump(mode="json")


class TestEnqueue:
    def test_a_row_is_a_job(self, app: Celery) -> None:
        batch = enqueue_batch(
            WORKFLOW,
            ROWS,
            inputs={"x": "data:,"},
            output={"prefix": "p"},
            timeout_seconds=5,
            metadata={"a": "b"},
            priority=3,
            expires=60,
            celery=app,
            queue="rows",
            headers={"mine": "x"},
        )
        messages = sent(app, "rows")
        assert [one.headers["id"] for one in messages] == list(batch.job_ids)
        assert {one.headers["group"] for one in messages} == {batch.id}
        assert {one.headers["mine"] for one in messages} == {"x"}
        assert {one.properties["priority"] for one in messages} == {3}
        assert all(one.headers["expires"] for one in messages)
        for number, (message, row) in enumerate(zip(messages, ROWS, strict=True), 1):
            _, arguments, _ = message.payload
            assert arguments == {
                "workflow": WORKFLOW,
                "params": row,
                "inputs": {"x": "data:,"},
                "output": {"prefix": "p"},
                "timeout_seconds": 5,
                "metadata": {"a": "b", "batch": batch.id, "row": str(number)},
            }

    def test_the_same_id_is_the_same_batch(self, app: Celery) -> None:
        one, again = (
            enqueue_batch(WORKFLOW, ROWS, batch_id="a", celery=app, queue="same") for _ in "12"
        )
        assert one.job_ids == again.job_ids == tuple(job_id_of("a", row) for row in (1, 2, 3))
        other = enqueue_batch(WORKFLOW, ROWS, batch_id="b", celery=app, queue="same")
        assert not set(other.job_ids) & set(one.job_ids)
        sent(app, "same")

    def test_metadata_of_its_own_is_kept(self, app: Celery) -> None:
        enqueue_batch(WORKFLOW, [{}], metadata={"row": "mine"}, celery=app, queue="own")
        (message,) = sent(app, "own")
        assert message.payload[1]["metadata"]["row"] == "mine"

    def test_the_workflow_may_be_a_file(self, app: Celery, tmp_path: Path) -> None:
        content = json.dumps({"prompt": WORKFLOW}).encode()
        file = tmp_path / "workflow.json"
        file.write_bytes(content)
        url = f"data:application/json;base64,{base64.b64encode(content).decode()}"
        for source in (file, str(file), content, url):
            enqueue_batch(source, [{"1.seed": 2}], celery=app, queue="file")
        # Read once, not for each row, and by no worker.
        assert [one.payload[1]["workflow"] for one in sent(app, "file")] == [WORKFLOW] * 4

    def test_the_workflow_may_be_an_export(self, app: Celery) -> None:
        export = {"nodes": [{"id": 1, "type": "Render"}], "links": []}
        enqueue_batch(export, [{"1.seed": 2}, {}], celery=app, queue="export")
        assert len(sent(app, "export")) == 2

    @pytest.mark.parametrize(
        ("rows", "error", "sentence"),
        [
            ([], InvalidRequestError, "the batch has no row"),
            ([{}, {"1.of": 1}], InvalidWorkflowError, "row 2: param '1.of': node 1 (Render)"),
            ([{}, {"9.x": 1}], InvalidWorkflowError, "row 2: param '9.x': there is no node '9'"),
            ([{}, [1]], InvalidRequestError, "row 2: argument 'params': found [1]"),
            ([{"1.seed": {1}}], InvalidRequestError, "row 1: an argument is no JSON"),
            ([{1: 10**5000}], InvalidRequestError, "row 1: "),
        ],
        ids=lambda value: str(value) if isinstance(value, str) else "",
    )
    def test_nothing_is_sent_before_every_row_is_checked(
        self, app: Celery, rows: Any, error: type[Exception], sentence: str
    ) -> None:
        with pytest.raises(error) as caught:
            enqueue_batch(WORKFLOW, rows, celery=app, queue="none")
        assert str(caught.value).startswith(sentence)
        assert sent(app, "none") == []

    @pytest.mark.parametrize("batch_id", ["", 7, "\ud800"])
    def test_what_is_no_id(self, app: Celery, batch_id: Any) -> None:
        with pytest.raises(InvalidRequestError, match="batch_id: found"):
            enqueue_batch(WORKFLOW, ROWS, batch_id=batch_id, celery=app)

    def test_what_is_left_of_a_batch_is_told(
        self, app: Celery, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ids = iter(["one"])

        def send_task(*_: Any, **__: Any) -> str:
            return next(ids)

        monkeypatch.setattr(app, "send_task", send_task)
        with pytest.raises(StopIteration) as caught:
            enqueue_batch(WORKFLOW, ROWS, batch_id="a", celery=app)
        (note,) = caught.value.__notes__
        assert note.startswith("1 of the 3 jobs of batch a were enqueued; enqueue it again")
        # Cancelled it can be from anywhere.
        assert len(Batch.restore("a", app).job_ids) == 3


class Backend:
    """Says of jobs what it is told to, and counts how often it is asked."""

    def __init__(self, app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
        self.app = app
        self.asked: list[int] = []
        mget = app.backend.mget

        def count(keys: Sequence[Any]) -> Any:
            self.asked.append(len(keys))
            return mget(keys)

        monkeypatch.setattr(app.backend, "mget", count)
        monkeypatch.setattr(handle, "LOOK_SECONDS", 0.0)

    def store(self, job_id: str, content: object, state: str) -> None:
        self.app.backend.store_result(job_id, content, state)

    def succeed(self, job_id: str) -> None:
        self.store(job_id, result(job_id), "SUCCESS")


@pytest.fixture
def backend(app: Celery, monkeypatch: pytest.MonkeyPatch) -> Backend:
    return Backend(app, monkeypatch)


@pytest.fixture
def batch(app: Celery) -> Batch:
    return Batch("b", ["one", "two", "three", "four"], app)


class TestHandle:
    def test_how_far_the_whole_is(self, backend: Backend, batch: Batch) -> None:
        assert batch.progress() == BatchProgress(4, {"PENDING": 4}, 0.0)
        backend.succeed("one")
        backend.store("two", NodeFailedError("x"), "FAILURE")
        backend.store("three", {"value": 0.5, "stage": "executing"}, "PROGRESS")
        progress = batch.progress()
        states = {"SUCCESS": 1, "FAILURE": 1, "PROGRESS": 1, "PENDING": 1}
        assert progress == BatchProgress(4, states, 0.625)
        assert (progress.ended, progress.failed) == (2, 1)

    def test_what_has_ended_is_asked_for_once(self, backend: Backend, batch: Batch) -> None:
        backend.succeed("one")
        batch.progress()
        batch.progress()
        assert backend.asked == [4, 3]

    def test_many_are_asked_for_at_once(self, backend: Backend, app: Celery) -> None:
        Batch("b", [str(n) for n in range(1200)], app).progress()
        assert backend.asked == [500, 500, 200]

    def test_results_stand_in_the_order_of_the_rows(self, backend: Backend, batch: Batch) -> None:
        for job_id in reversed(batch.job_ids):
            backend.succeed(job_id)
        assert [one.job_id for one in batch.results()] == list(batch.job_ids)

    def test_failures_stand_in_their_place(self, backend: Backend, batch: Batch) -> None:
        backend.succeed("one")
        backend.store("two", NodeFailedError("it broke"), "FAILURE")
        backend.store("three", None, "REVOKED")
        backend.succeed("four")
        one, two, three, four = batch.results(raise_on_error=False)
        assert isinstance(one, JobResult)
        assert (type(two), str(two)) == (NodeFailedError, "it broke")
        assert (type(three), str(three)) == (JobCancelledError, "the job was revoked")
        assert isinstance(four, JobResult)

    def test_a_failure_is_raised_as_soon_as_it_is_seen(
        self, backend: Backend, batch: Batch
    ) -> None:
        backend.store("four", NodeFailedError("it broke"), "FAILURE")
        with pytest.raises(NodeFailedError, match="it broke"):
            batch.results()

    def test_who_waits_hears_how_far_it_is(self, backend: Backend, batch: Batch) -> None:
        heard: list[int] = []

        def on_progress(progress: BatchProgress) -> None:
            heard.append(progress.ended)
            if progress.ended < 4:
                backend.succeed(batch.job_ids[progress.ended])

        assert batch.wait(on_progress).value == 1.0
        assert heard == [0, 1, 2, 3, 4]

    @pytest.mark.usefixtures("backend")
    def test_waiting_ends(self, batch: Batch) -> None:
        with pytest.raises(CeleryTimeoutError, match="batch b has not ended within 0 s"):
            batch.wait(timeout=0)

    def test_a_backend_that_is_away_for_a_while_is_waited_for(
        self, backend: Backend, batch: Batch, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for job_id in batch.job_ids:
            backend.succeed(job_id)
        mget, away = batch._celery.backend.mget, [ConnectionError("away"), ConnectionError("away")]

        def refuse(keys: Any) -> Any:
            if away:
                raise away.pop()
            return mget(keys)

        monkeypatch.setattr(batch._celery.backend, "mget", refuse)
        with pytest.raises(ConnectionError):
            batch.wait()
        monkeypatch.setattr(
            batch._celery.backend,
            "exception_safe_to_retry",
            lambda error: isinstance(error, ConnectionError),
        )
        assert batch.wait().ended == 4

    def test_one_message_cancels_what_has_not_ended(
        self, backend: Backend, batch: Batch, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        told: list[Any] = []

        def revoke(ids: list[str], *, terminate: bool) -> None:
            told.append((ids, terminate))

        monkeypatch.setattr(batch._celery.control, "revoke", revoke)
        backend.succeed("two")
        batch.progress()
        batch.cancel()
        assert told == [(["one", "three", "four"], True)]

    def test_a_batch_is_found_by_its_id(self, app: Celery) -> None:
        batch = enqueue_batch(WORKFLOW, ROWS, celery=app, queue="found")
        restored = Batch.restore(batch.id, app)
        assert (restored.id, restored.job_ids) == (batch.id, batch.job_ids)
        with pytest.raises(InvalidRequestError, match="batch 'none' is not known"):
            Batch.restore("none", app)


class TestSweep:
    def test_the_last_changes_first(self) -> None:
        assert sweep({"3.cfg": [5, 7], "3.seed": range(1, 3)}) == [
            {"3.cfg": 5, "3.seed": 1},
            {"3.cfg": 5, "3.seed": 2},
            {"3.cfg": 7, "3.seed": 1},
            {"3.cfg": 7, "3.seed": 2},
        ]

    def test_nothing_to_sweep_is_one_row(self) -> None:
        assert sweep({}) == [{}]
        assert sweep({"a.b": []}) == []

    @pytest.mark.parametrize("values", ["abc", 5, None])
    def test_values_are_a_list(self, values: Any) -> None:
        with pytest.raises(InvalidRequestError, match="expected a list"):
            sweep({"3.cfg": values})


def test_ids_of_jobs_stay_what_they_are() -> None:
    # Whoever enqueues a batch again after an update must not have it rendered twice.
    assert job_id_of("a", 1) == "10c5b5d2-4be9-527a-bcc6-fbcb6963a326"
