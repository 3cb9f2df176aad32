"""The task's body with an executor that does as the test says."""

import time
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import Reject, Retry

from tasks.errors import InternalError, InvalidRequestError, NodeFailedError, OutOfMemoryError
from tasks.result import Attempt, Progress
from workers.execution import Job, Report
from workers.task import ATTEMPTS, PROGRESS_INTERVAL, RunWorkflow

WORKFLOW = {"1": {"class_type": "SaveImage", "inputs": {}}}


class Executor:
    """Raises what it is given, and keeps what it was asked."""

    instance = "http://gpu"

    def __init__(self, error: Exception, progress: list[Progress] | None = None) -> None:
        self.error = error
        self.progress = progress or []
        self.jobs: list[Job] = []

    def run(self, job: Job, report: Report) -> Any:
        self.jobs.append(job)
        for progress in self.progress:
            report(progress)
        raise self.error

    def attempt(self, job: Job, started: float, error: Exception) -> Attempt:
        seconds = time.monotonic() - started
        return Attempt(
            number=job.attempt, instance="i", prompt_id="p", error=str(error), seconds=seconds
        )


@pytest.fixture
def task() -> RunWorkflow:
    app = Celery(broker="memory://", backend="cache+memory://")
    one = app.register_task(RunWorkflow())
    one.max_attempts = 3
    return one


def run(task: RunWorkflow, retries: int = 0, headers: Any = None, **arguments: Any) -> Any:
    task.push_request(
        id="job",
        retries=retries,
        headers=headers,
        delivery_info={"redelivered": False},
        args=[],
        kwargs={"workflow": WORKFLOW, **arguments},
        called_directly=False,
    )
    try:
        return task.run(workflow=WORKFLOW, **arguments)
    finally:
        task.pop_request()


def test_a_transient_error_puts_the_next_attempt_on_the_queue(task: RunWorkflow) -> None:
    task.executor = Executor(OutOfMemoryError("x"))  # type: ignore[assignment]
    sent: list[dict[str, Any]] = []
    task.signature_from_request = lambda *_, **options: sent.append(options) or _Sent()  # type: ignore[method-assign]
    with pytest.raises(Retry):
        run(task, headers={"enqueued_at": 1.0})
    (options,) = sent
    assert options["retries"] == 1
    assert 1 <= options["countdown"] <= 2
    assert options["headers"]["enqueued_at"] == 1.0
    assert [a["number"] for a in options["headers"][ATTEMPTS]] == [1]


def test_a_next_attempt_that_cannot_be_published_gives_the_job_back(task: RunWorkflow) -> None:
    task.executor = Executor(OutOfMemoryError("x"))  # type: ignore[assignment]
    task.signature_from_request = lambda *_, **__: _Sent(ConnectionError())  # type: ignore[method-assign]
    with pytest.raises(Reject) as caught:
        run(task)
    assert caught.value.requeue


class _Sent:
    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    def apply_async(self) -> None:
        if self.error:
            raise self.error


def test_the_last_attempt_fails_with_the_error_itself(task: RunWorkflow) -> None:
    earlier = [{"number": 1, "instance": "i", "prompt_id": "p", "error": "x", "seconds": 1.0}]
    executor = Executor(OutOfMemoryError("x"))
    task.executor = executor  # type: ignore[assignment]
    with pytest.raises(OutOfMemoryError):
        run(task, retries=2, headers={ATTEMPTS: earlier})
    (job,) = executor.jobs
    assert (job.attempt, len(job.earlier)) == (3, 1)


def test_a_permanent_error_fails_at_once(task: RunWorkflow) -> None:
    task.executor = Executor(NodeFailedError("x"))  # type: ignore[assignment]
    with pytest.raises(NodeFailedError):
        run(task)


def test_a_fault_of_ours_is_a_sentence_of_ours(task: RunWorkflow) -> None:
    task.executor = Executor(KeyError("secret"))  # type: ignore[assignment]
    with pytest.raises(InternalError) as caught:
        run(task, retries=2)
    assert caught.value.message == (
        "comfyfleet itself failed with KeyError; the worker's log says where"
    )


def test_a_header_that_is_not_ours_is_refused(task: RunWorkflow) -> None:
    task.executor = Executor(NodeFailedError("x"))  # type: ignore[assignment]
    with pytest.raises(InvalidRequestError, match="header 'attempts' is not ours"):
        run(task, headers={ATTEMPTS: 5})


def test_progress_that_cannot_be_written_harms_no_job(task: RunWorkflow) -> None:
    progress = Progress(stage="executing", value=0.5, instance="i")
    task.executor = Executor(NodeFailedError("x"), [progress])  # type: ignore[assignment]

    def gone(**_: Any) -> None:
        raise ConnectionError

    task.update_state = gone  # type: ignore[method-assign]
    with pytest.raises(NodeFailedError):
        run(task)


@pytest.mark.parametrize(("interval", "told"), [(0.0, [0.4, 0.9, 0.9]), (0.5, [0.4])])
def test_progress_is_written_at_most_each_interval_and_never_falls(
    task: RunWorkflow, monkeypatch: pytest.MonkeyPatch, interval: float, told: list[float]
) -> None:
    assert PROGRESS_INTERVAL == 0.5
    monkeypatch.setattr("workers.task.PROGRESS_INTERVAL", interval)
    written: list[float] = []
    task.update_state = lambda **told: written.append(told["meta"]["value"])  # type: ignore[method-assign]
    values = [Progress(stage="s", value=v, instance="i") for v in (0.4, 0.9, 0.2)]
    task.executor = Executor(NodeFailedError("x"), values)  # type: ignore[assignment]
    with pytest.raises(NodeFailedError):
        run(task)
    assert written == told
