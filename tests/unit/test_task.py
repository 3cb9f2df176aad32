"""The task's body with a custody that does as the test says."""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import Ignore
from celery.worker import state

from tasks.errors import (
    ComfyUIUnavailableError,
    InvalidRequestError,
    JobCancelledError,
    JobError,
    JobExpiredError,
    NodeFailedError,
    OutOfMemoryError,
    UntrustedMessageError,
)
from tasks.result import Attempt, JobResult, Progress
from tests.unit.scene import RESULT
from workers.broker.consumer import IS_SIGNED, ComesAgain, Revoked
from workers.execution import NotNow, Order, Report
from workers.ledger.outcomes import JobFailed
from workers.observing import Event, JobEnded, JobRefused
from workers.task import RunWorkflow

WORKFLOW = {"1": {"class_type": "SaveImage", "inputs": {}}}


class Custody:
    """Does what it is given to do, and keeps what it was asked."""

    def __init__(self, end: Exception | JobResult, progress: list[Progress] | None = None) -> None:
        self.end = end
        self.progress = progress or []
        self.orders: list[Order] = []
        self.known: set[str] = set()
        self.refused: list[tuple[str, Any, str]] = []

    def knows(self, job_id: str) -> bool:
        return job_id in self.known

    def tell_refusal(self, job_id: str, arguments: Any, error: JobError) -> None:
        self.refused.append((job_id, arguments, error.message))

    def run(self, order: Order, report: Report) -> JobResult:
        self.orders.append(order)
        for progress in self.progress:
            report(progress)
        if isinstance(self.end, Exception):
            raise self.end
        return self.end


class Told:
    """What the writer of progress hears, in order; forgetting is None."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Progress | None]] = []

    def tell(self, job_id: str, progress: Progress) -> None:
        self.heard.append((job_id, progress))

    def forget(self, job_id: str) -> None:
        self.heard.append((job_id, None))


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def observed() -> list[Event]:
    return []


@pytest.fixture
def task(told: Told, observed: list[Event]) -> RunWorkflow:
    app = Celery(broker="memory://", backend="cache+memory://", set_as_current=False)
    one = app.register_task(RunWorkflow())
    one.progress = told
    one.observe = observed.append
    return one


Play = Callable[..., Any]


@pytest.fixture
def play(task: RunWorkflow) -> Play:
    def run(
        custody: Custody,
        *,
        headers: Any = None,
        job_id: str = "job",
        priority: Any = None,
        redelivered: Any = False,
        expires: Any = None,
        lane: Any = None,
        unable: Any = None,
        **arguments: Any,
    ) -> Any:
        task.custody = custody  # type: ignore[assignment]
        task.push_request(
            id=job_id,
            headers=headers,
            expires=expires,
            lane=lane,
            unable=unable,
            delivery_info={"redelivered": redelivered, "priority": priority},
            args=[],
            kwargs={"workflow": WORKFLOW, **arguments},
            called_directly=False,
        )
        try:
            return task.run(workflow=WORKFLOW, **arguments)
        finally:
            task.pop_request()

    return run


def attempt(number: int, error: str | None) -> Attempt:
    instance = f"http://gpu-{number}"
    return Attempt(number=number, instance=instance, prompt_id="p", error=error, seconds=2.34)


# What it asks for


def test_the_order_is_what_the_message_says(play: Play) -> None:
    custody = Custody(RESULT)
    before = time.time()
    play(custody, headers={"enqueued_at": before - 7.0}, priority=3, metadata={"a": "b"})
    (order,) = custody.orders
    assert (order.job_id, order.priority) == ("job", 3)
    assert (order.request.workflow, order.request.metadata) == (WORKFLOW, {"a": "b"})
    assert 7.0 <= order.queued_seconds <= 7.0 + time.time() - before


@pytest.mark.parametrize(
    ("said", "redelivered"), [(True, True), (False, False), (None, False), (1, True)]
)
def test_the_order_says_whether_the_message_came_before(
    play: Play, said: Any, redelivered: bool
) -> None:
    custody = Custody(RESULT)
    play(custody, redelivered=said)
    assert custody.orders[0].redelivered is redelivered


def test_the_order_says_from_which_lane_it_comes_whatever_a_producer_says(play: Play) -> None:
    custody = Custody(RESULT)
    headers = {"lane": "x", "unable": 7}
    play(custody, headers=headers, lane="y", unable=("a", "b"))
    play(custody, headers=headers, lane="", unable=())
    in_lane, not_in_one = custody.orders
    assert (in_lane.in_lane, in_lane.unable) == (True, {"a", "b"})
    assert (not_in_one.in_lane, not_in_one.unable) == (False, set())


@pytest.mark.parametrize("nonsense", ["noon", None, -1, 0, float("nan"), 1e15, [1]])
def test_a_message_that_does_not_say_when_it_was_sent_waits_from_its_arrival(
    play: Play, nonsense: Any
) -> None:
    custody = Custody(RESULT)
    before = time.time()
    play(custody, headers={"enqueued_at": nonsense, "received_at": before - 2.0})
    assert 2.0 <= custody.orders[0].queued_seconds <= 2.0 + time.time() - before


def test_a_clock_that_runs_ahead_is_no_negative_wait(play: Play) -> None:
    custody = Custody(RESULT)
    play(custody, headers={"enqueued_at": time.time() + 3600})
    assert custody.orders[0].queued_seconds == 0.0


@pytest.mark.parametrize(
    ("expires", "expired"),
    [
        (None, False),
        ("2999-01-01T00:00:00+00:00", False),
        ("2001-01-01T00:00:00+00:00", True),
        ("2001-01-01T00:00:00", True),
        (datetime(2001, 1, 1, tzinfo=UTC), True),
        (datetime(2999, 1, 1, tzinfo=UTC), False),
    ],
    ids=str,
)
def test_the_order_says_whether_it_is_too_late(play: Play, expires: Any, expired: bool) -> None:
    custody = Custody(RESULT)
    play(custody, expires=expires)
    assert custody.orders[0].expired == expired


def test_the_order_says_whether_this_worker_heard_of_its_revocation(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    custody = Custody(RESULT)
    play(custody)
    monkeypatch.setattr(state, "revoked", {"job"})
    play(custody)
    assert [order.revoked for order in custody.orders] == [False, True]


def test_a_wrong_request_fails_before_there_is_a_job(play: Play) -> None:
    custody = Custody(RESULT)
    with pytest.raises(InvalidRequestError, match="unknown argument 'parms'"):
        play(custody, parms={})
    assert custody.orders == []


def test_a_wrong_request_in_the_name_of_a_known_job_is_dropped(
    play: Play, task: RunWorkflow
) -> None:
    # Else its failure would be told of a job that goes on, or has succeeded.
    task.backend.store_result("job", {"stage": "executing"}, "PROGRESS")
    custody = Custody(RESULT)
    custody.known = {"job"}
    with pytest.raises(Ignore) as caught:
        play(custody, parms={})
    # What it was goes no further than the log.
    assert caught.value.__suppress_context__
    assert task.backend.get_task_meta("job")["status"] == "PROGRESS"
    assert custody.orders == custody.refused == []


def test_the_same_of_another_job_is_told(play: Play, observed: list[Event]) -> None:
    custody = Custody(RESULT)
    custody.known = {"another"}
    with pytest.raises(InvalidRequestError) as caught:
        play(custody, headers={"traceparent": "x"}, parms={})
    assert observed == [
        JobRefused("job", caught.value, {"traceparent": "x"}),
        JobEnded("job", "failed", caught.value),
    ]
    # Its webhook, if it names one, with what there is of the request.
    ((job_id, arguments, message),) = custody.refused
    assert (job_id, arguments["parms"], message) == ("job", {}, caught.value.message)


def test_an_unsigned_message_is_refused_and_its_webhook_not_believed(
    play: Play, task: RunWorkflow, observed: list[Event]
) -> None:
    task.message_secrets = ("s" * 32,)
    custody = Custody(RESULT)
    with pytest.raises(UntrustedMessageError):
        # Whatever its headers say.
        play(custody, headers={IS_SIGNED: True})
    assert custody.orders == custody.refused == []
    assert [type(event) for event in observed] == [JobRefused, JobEnded]


def test_a_line_break_in_its_id_is_why_a_message_has_no_signature(
    play: Play, task: RunWorkflow
) -> None:
    custody = Custody(RESULT)
    play(custody, job_id="a\nb")
    task.message_secrets = ("s" * 32,)
    with pytest.raises(UntrustedMessageError, match=r"^the job's id 'a\\nb' has a line break, "):
        play(custody, job_id="a\nb")
    assert len(custody.orders) == 1


def test_an_unsigned_message_in_the_name_of_a_known_job_is_dropped(
    play: Play, task: RunWorkflow
) -> None:
    task.message_secrets = ("s" * 32,)
    custody = Custody(RESULT)
    custody.known = {"job"}
    with pytest.raises(Ignore):
        play(custody)
    assert custody.orders == []


# How it ends


def test_a_result_is_returned_as_json(play: Play) -> None:
    returned = play(Custody(RESULT))
    assert JobResult.model_validate(json.loads(json.dumps(returned))) == RESULT


def test_another_attempt_gives_the_message_back_and_shows_why(
    play: Play, task: RunWorkflow
) -> None:
    # Not a new message, as before: the ledger knows of the attempts, this one only comes again.
    with pytest.raises(ComesAgain) as caught:
        play(Custody(NotNow(1.5, ComfyUIUnavailableError("it is down"))))
    assert caught.value.seconds == 1.5
    meta = task.backend.get_task_meta("job")
    assert meta["status"] == "RETRY"
    assert type(meta["result"]) is ComfyUIUnavailableError
    assert str(meta["result"]) == "it is down"


def test_a_job_that_somebody_else_has_leaves_its_state_alone(play: Play, task: RunWorkflow) -> None:
    task.backend.store_result("job", {"stage": "executing"}, "PROGRESS")
    with pytest.raises(ComesAgain) as caught:
        play(Custody(NotNow(0.0)))
    assert caught.value.seconds == 0.0
    assert task.backend.get_task_meta("job")["status"] == "PROGRESS"


@pytest.mark.parametrize(
    ("error", "expired"), [(JobCancelledError("why"), False), (JobExpiredError("why"), True)]
)
def test_a_cancelled_job_and_one_that_came_too_late_are_revoked(
    play: Play, error: JobError, expired: bool
) -> None:
    with pytest.raises(Revoked, match="why") as caught:
        play(Custody(error))
    assert caught.value.expired == expired


def test_a_failure_after_one_attempt_is_the_error_itself(play: Play) -> None:
    one = attempt(1, "NodeFailedError: node 3 broke")
    with pytest.raises(NodeFailedError) as caught:
        play(Custody(JobFailed(NodeFailedError("node 3 broke"), [one])))
    assert caught.value.message == "node 3 broke"
    assert caught.value.attempts == [one.model_dump(mode="json")]


def test_a_failure_after_several_attempts_tells_them(play: Play) -> None:
    attempts = [attempt(1, "WorkerDiedError: its worker vanished"), attempt(2, "OutOfMemoryError:")]
    with pytest.raises(OutOfMemoryError) as caught:
        play(Custody(JobFailed(OutOfMemoryError("node 3 ran out of memory"), attempts)))
    assert caught.value.message == (
        "node 3 ran out of memory (attempts: "
        "1 on http://gpu-1 WorkerDiedError after 2.3 s, "
        "2 on http://gpu-2 OutOfMemoryError after 2.3 s)"
    )
    assert [one["number"] for one in caught.value.attempts] == [1, 2]


def test_a_failure_carries_no_foreign_error(play: Play) -> None:
    # Celery stores the traceback, and foreign errors may quote headers and URLs.
    error = NodeFailedError("x")
    error.__cause__ = KeyError("secret")
    with pytest.raises(NodeFailedError) as caught:
        play(Custody(JobFailed(error, [])))
    assert caught.value is not error
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_header_named_attempts_means_nothing(play: Play) -> None:
    # It was where attempts were kept; they are in the ledger now, where no producer writes.
    custody = Custody(RESULT)
    play(custody, headers={"attempts": 5})
    assert len(custody.orders) == 1


# Progress


def progress(value: float) -> Progress:
    return Progress(stage="executing", value=value, instance="http://gpu", node_id="3")


def test_progress_is_told_as_it_is_but_never_falls(play: Play, told: Told) -> None:
    play(Custody(RESULT, [progress(value) for value in (0.4, 0.9, 0.2)]))
    assert told.heard[:-1] == [("job", progress(value)) for value in (0.4, 0.9, 0.9)]


@pytest.mark.parametrize(
    "end",
    [
        RESULT,
        NotNow(0.0),
        NotNow(1.5, ComfyUIUnavailableError("it is down")),
        JobCancelledError("x"),
        JobFailed(NodeFailedError("x"), []),
        KeyError("a fault"),
    ],
    ids=lambda end: type(end).__name__,
)
def test_what_is_not_yet_written_of_a_job_is_not_written_after_it(
    play: Play, told: Told, end: Exception | JobResult
) -> None:
    with suppress(Exception):
        play(Custody(end, [progress(0.4)]))
    assert told.heard == [("job", progress(0.4)), ("job", None)]


def test_progress_is_forgotten_before_another_attempt_is_told(
    play: Play, task: RunWorkflow, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Else the state RETRY might be written over.
    heard: list[object] = []
    monkeypatch.setattr(task.backend, "mark_as_retry", lambda *_, **__: heard.extend(told.heard))
    with pytest.raises(ComesAgain):
        play(Custody(NotNow(1.5, ComfyUIUnavailableError("it is down")), [progress(0.4)]))
    assert heard == [("job", progress(0.4)), ("job", None)]
