"""Whose a job is and how it ends: custody's decisions, with a ledger and servers of paper."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.errors import (
    BrokerFullError,
    BrokerUnavailableError,
    CancelledError,
    InternalError,
    InvalidRequestError,
    JobCancelledError,
    JobError,
    JobExpiredError,
    NodeFailedError,
    OutOfMemoryError,
    StorageUnavailableError,
)
from tasks.request import JobRequest
from tasks.result import Attempt
from tests.unit.scene import (
    AGAIN,
    CRASHED,
    HERE,
    NEIGHBOUR,
    NOW,
    ORDER,
    RECORD,
    REDELIVERED,
    REFUSED,
    REQUEST,
    RESULT,
    TOKEN,
    Scene,
    again,
    new,
    orphaned,
    refused,
    routed,
)
from workers.comfyui.model import PromptState
from workers.execution import NotNow, Order
from workers.execution.control import LeaseLost, Spared, WorkerLeaving
from workers.execution.job import AttemptFailed, Start, prompt_id
from workers.ledger import Cancelled, Claimed, Ended, Held, Route
from workers.ledger.outbox import Notice
from workers.ledger.outcomes import JobFailed, failure_detail, failure_from
from workers.observing import AttemptBegan, AttemptEnded, JobEnded, JobLeft, JobSuppressed, JobTaken
from workers.routing.lanes import Here, Lane, Later
from workers.webhooks import Notices

pytestmark = pytest.mark.usefixtures("redis_is_asked_again_at_once")


# Failures as the ledger keeps them
@pytest.mark.parametrize("attempts", [(), (CRASHED,), (CRASHED, CRASHED)])
def test_a_failure_comes_back_from_the_ledger_as_it_was(attempts: tuple[Attempt, ...]) -> None:
    kept = failure_detail(JobFailed(NodeFailedError("node 3: ü"), attempts))
    failed = failure_from(kept)
    assert type(failed.error) is NodeFailedError
    assert failed.error.message == "node 3: ü"
    assert failed.attempts == attempts


def test_a_failure_of_a_later_version_keeps_its_sentence() -> None:
    detail = '{"type": "NotKnownYetError", "message": "x", "attempts": []}'
    assert type(failure_from(detail).error) is InternalError
    assert failure_from(detail).error.message == "x"


# Who has it


def test_a_new_job_is_attempted_here_and_ends() -> None:
    scene = new()
    assert scene.run() == RESULT
    assert (scene.job.id, scene.job.number, scene.job.start) == ("job", 1, Start.SUBMIT)
    assert (scene.job.instance, scene.job.client_id) == (HERE, "mine")
    assert scene.job.queued_seconds == 1.5
    assert scene.ledger.written == [("end", "succeeded", "job/manifest.json")]
    assert scene.job.folder == "as asked now/job"
    # Nobody was asked for what cannot be.
    assert (scene.server.asked, scene.executor.recalled) == ([], [])
    taken, began, *ended = scene.events
    assert isinstance(taken, JobTaken)
    assert (taken.is_new, taken.redelivered) == (True, False)
    assert began == AttemptBegan("job", 1, prompt_id("job", 1), HERE, "submit")
    assert ended == [
        AttemptEnded("job", 1),
        JobEnded("job", "succeeded", result=RESULT),
        JobLeft("job"),
    ]


@pytest.mark.parametrize(("left", "looked"), [(3.0, 3.5), (3600.0, 10.0)])
def test_a_job_that_somebody_has_is_looked_at_when_that_may_be_over(
    left: float, looked: float
) -> None:
    scene = Scene(Held(left))
    later = scene.postponed()
    assert (later.seconds, later.error) == (looked, None)
    assert (scene.executor.jobs, scene.ledger.written) == ([], [])
    assert scene.events == [JobSuppressed("job", "held")]


def test_a_cancelled_job_is_not_begun() -> None:
    scene = Scene(Cancelled(TOKEN, None))
    with pytest.raises(JobCancelledError):
        scene.run()
    assert scene.executor.jobs == []
    assert scene.ledger.written == [("end", "cancelled", "")]
    (ended,) = scene.events
    assert isinstance(ended, JobEnded)
    assert (ended.outcome, type(ended.error)) == ("cancelled", JobCancelledError)


@pytest.mark.parametrize(
    ("here", "models"),
    [(Here(), "unknown"), (Here(models="m"), "warm"), (Here(models="m", cold=True), "cold")],
)
def test_whether_models_are_loaded_for_an_attempt_is_told(here: Here, models: str) -> None:
    scene = new()
    scene.router.way = here
    scene.run()
    assert [one.models for one in scene.events if isinstance(one, AttemptBegan)] == [models]


@pytest.mark.parametrize("vanished", [True, False])
def test_that_a_job_is_taken_over_is_told(vanished: bool) -> None:
    scene = orphaned() if vanished else again()
    scene.run()
    taken = scene.events[0]
    assert isinstance(taken, JobTaken)
    assert taken.owner_died == vanished


def test_each_claim_is_one_of_its_own() -> None:
    scene = Scene(Held(1.0))
    for _ in range(2):
        scene.postponed()
    first, second = scene.ledger.nonces
    assert first != second


def test_a_job_that_comes_too_late_is_not_begun() -> None:
    scene = new()
    with pytest.raises(JobExpiredError):
        scene.run(replace(ORDER, expired=True))
    (ended,) = (one for one in scene.events if isinstance(one, JobEnded))
    assert (ended.outcome, type(ended.error)) == ("cancelled", JobExpiredError)
    assert scene.executor.jobs == []
    assert scene.ledger.last("end") == ("cancelled", "")


def test_a_job_that_was_begun_in_time_goes_on() -> None:
    scene = again()
    assert scene.run(replace(ORDER, expired=True)) == RESULT


def test_a_cancellation_that_only_this_worker_heard_is_recorded_first() -> None:
    scene = Scene(Cancelled(TOKEN, None))
    with pytest.raises(JobCancelledError):
        scene.run(replace(ORDER, revoked=True))
    assert scene.ledger.steps == ["cancel", "end"]
    assert scene.ledger.last("cancel") == ("job", False)


def test_a_worker_that_takes_no_jobs_leaves_them_alone() -> None:
    scene = new()
    scene.takes_jobs = False
    assert scene.postponed().seconds < 1.0
    assert (scene.executor.jobs, scene.ledger.written) == ([], [])


@pytest.mark.parametrize("leaf", [BrokerUnavailableError, BrokerFullError])
def test_what_cannot_be_claimed_comes_again(leaf: type[JobError]) -> None:
    scene = new()
    scene.ledger.away = [leaf("x")]
    assert scene.postponed().error is None
    assert scene.executor.jobs == []


# Those that have ended


def test_a_job_that_succeeded_is_recalled_from_its_manifest() -> None:
    scene = Scene(Ended("succeeded", "job/manifest.json"))
    scene.executor.manifest = RESULT
    assert scene.run() == RESULT
    assert scene.executor.recalled == ["job/manifest.json"]
    assert (scene.executor.jobs, scene.ledger.written) == ([], [])


def test_a_job_that_failed_fails_again_with_all_its_attempts() -> None:
    detail = failure_detail(JobFailed(NodeFailedError("node 3"), [CRASHED]))
    failed = Scene(Ended("failed", detail)).failed()
    assert (type(failed.error), failed.attempts) == (NodeFailedError, (CRASHED,))


def test_a_job_that_was_cancelled_stays_cancelled() -> None:
    with pytest.raises(JobCancelledError):
        Scene(Ended("cancelled", "")).run()


def test_a_result_that_cannot_be_read_now_is_read_later() -> None:
    scene = Scene(Ended("succeeded", "job/manifest.json"))
    scene.executor.manifest = StorageUnavailableError("away")
    # It shows no state RETRY: the job is not tried again.
    assert scene.postponed().error is None


def test_a_result_that_somebody_deleted_is_told() -> None:
    scene = Scene(Ended("succeeded", "job/manifest.json"))
    failed = scene.failed()
    assert type(failed.error) is InternalError
    assert "job/manifest.json is gone" in failed.error.message


# What may be committed already
def test_a_committed_job_that_the_ledger_has_forgotten_is_not_run() -> None:
    scene = new()
    scene.executor.manifest = RESULT
    assert scene.run(REDELIVERED) == RESULT
    assert scene.executor.jobs == []
    assert scene.ledger.written == [("end", "succeeded", "job/manifest.json")]


@pytest.mark.parametrize(
    ("scene", "order", "asked"),
    [
        # Nobody can have committed it.
        pytest.param(new, ORDER, [], id="new"),
        pytest.param(lambda: again(RECORD), ORDER, [], id="let go of untried"),
        pytest.param(lambda: again(RECORD), REDELIVERED, [], id="let go of untried, again"),
        # The ledger may have forgotten.
        pytest.param(new, REDELIVERED, ["soon"], id="new, again"),
        pytest.param(again, ORDER, ["soon"], id="tried before"),
        pytest.param(again, REDELIVERED, ["soon"], id="tried before, again"),
        # Who died may have done it: that must be known.
        pytest.param(orphaned, ORDER, ["patiently"], id="orphaned"),
        pytest.param(lambda: orphaned(AGAIN), REDELIVERED, ["patiently"], id="orphaned, again"),
    ],
)
def test_the_store_is_asked_only_for_what_may_be_committed(
    scene: Callable[[], Scene], order: Order, asked: list[str]
) -> None:
    one = scene()
    assert one.run(order) == RESULT
    assert one.executor.asked == asked
    assert len(one.executor.jobs) == 1


def test_a_job_that_comes_too_late_is_not_looked_for_in_the_store() -> None:
    scene = new()
    with pytest.raises(JobExpiredError):
        scene.run(replace(REDELIVERED, expired=True))
    assert scene.executor.asked == []


def test_a_job_that_is_committed_touches_no_gpu() -> None:
    scene = orphaned()
    scene.executor.manifest = RESULT
    assert scene.run() == RESULT
    assert (scene.executor.jobs, scene.server.asked) == ([], [])
    assert scene.ledger.written == [("end", "succeeded", "job/manifest.json")]


# What is told of attempts
@pytest.mark.parametrize(
    ("end", "after"),
    [
        pytest.param(REFUSED, Lane.of("", ["here"]), id="to a lane"),
        pytest.param(REFUSED, Later(5.0), id="until servers join"),
        pytest.param(REFUSED, BrokerUnavailableError("away"), id="nobody knows where to"),
        pytest.param(Spared("x"), None, id="spared"),
        pytest.param(LeaseLost("x"), None, id="lost"),
        pytest.param(WorkerLeaving("x"), None, id="left"),
        pytest.param(JobCancelledError("x"), None, id="cancelled"),
        pytest.param(AttemptFailed(OutOfMemoryError("x")), None, id="again"),
        pytest.param(AttemptFailed(NodeFailedError("x")), None, id="failed"),
        pytest.param(KeyError("x"), None, id="a fault"),
        pytest.param(RESULT, None, id="succeeded"),
    ],
)
def test_each_attempt_that_is_told_to_begin_is_told_to_end(end: Any, after: Any) -> None:
    scene = refused(after)
    scene.executor.end = end
    with suppress(NotNow, JobFailed, CancelledError):
        scene.run()
    kinds = [type(one) for one in scene.events if isinstance(one, AttemptBegan | AttemptEnded)]
    assert kinds == [AttemptBegan, AttemptEnded]
    assert isinstance(scene.events[-1], JobLeft)


def test_an_attempt_that_is_handed_on_before_it_begins_has_no_end() -> None:
    scene = again()
    scene.executor.manifest = WorkerLeaving("while the store was away")
    scene.postponed()
    assert [type(one) for one in scene.events] == [JobTaken, JobLeft]


# Whom it is meant for


def test_a_job_that_is_left_to_whom_it_is_meant_for_is_not_taken() -> None:
    scene = routed(prefer=NEIGHBOUR)
    scene.postponed()
    assert scene.events == []
    # Its neighbour has gone.
    scene.ledger.live = {HERE}
    scene.run()
    (taken,) = (one for one in scene.events if isinstance(one, JobTaken))
    assert scene.events[0] is taken


def test_that_a_worker_vanished_is_told_by_who_leaves_its_job_to_another() -> None:
    scene = orphaned(place=NEIGHBOUR, instance=NEIGHBOUR)
    scene.ledger.live = {HERE, NEIGHBOUR}
    scene.neighbour.state = PromptState.QUEUED
    scene.postponed()
    taken, left = scene.events
    assert isinstance(taken, JobTaken)
    assert (taken.owner_died, left) == (True, JobLeft("job"))


def test_a_vanished_worker_is_counted_whoever_its_job_was_meant_for() -> None:
    route = Route(avoid=(HERE,), until=NOW + 60.0)
    scene = orphaned(place=NEIGHBOUR, instance=NEIGHBOUR, route=route)
    scene.ledger.live = {HERE, NEIGHBOUR}
    scene.neighbour.state = PromptState.QUEUED
    scene.postponed()
    (record, _) = scene.ledger.last("release")
    assert [one.error for one in record.attempts] == ["WorkerDiedError: its worker vanished"]
    assert (record.route.prefer, record.crashes) == (NEIGHBOUR, 1)


def test_a_job_of_which_nobody_knows_for_whom_it_is_is_taken_before_it_waits() -> None:
    scene = routed(prefer=NEIGHBOUR)

    def away() -> frozenset[str]:
        raise BrokerUnavailableError("away")

    scene.ledger.live_places = away  # type: ignore[method-assign]
    scene.postponed()
    assert [type(one) for one in scene.events] == [JobTaken, AttemptEnded, JobLeft]


def test_a_job_of_which_a_fault_keeps_us_from_knowing_ends_as_any_with_a_fault() -> None:
    scene = routed(prefer=NEIGHBOUR)

    def faulty() -> frozenset[str]:
        raise KeyError("a fault")

    scene.ledger.live_places = faulty  # type: ignore[method-assign]
    assert type(scene.failed().error) is InternalError
    assert scene.ledger.steps == ["end"]
    assert [type(one) for one in scene.events] == [JobTaken, AttemptEnded, JobEnded, JobLeft]


# What is known


@pytest.mark.parametrize(
    ("verdict", "known"),
    [
        (Ended("succeeded", "m"), True),
        (Ended("failed", "x"), True),
        (Claimed(TOKEN, NOW, is_new=False, owner_died=False, record=RECORD), True),
        (None, False),
    ],
    ids=["succeeded", "failed", "begun", "never-heard-of"],
)
def test_a_job_that_has_been_begun_is_known(verdict: Any, known: bool) -> None:
    assert Scene(verdict).custody.knows("job") == known


@pytest.mark.parametrize("leaf", [BrokerUnavailableError, BrokerFullError])
def test_what_cannot_be_asked_for_is_not_known(leaf: type[JobError]) -> None:
    scene = Scene(Ended("succeeded", "m"))
    scene.ledger.away = [leaf("x")]
    assert not scene.custody.knows("job")


# Cancelling


def test_a_job_that_is_cancelled_while_it_runs_ends_so() -> None:
    scene = new()
    scene.executor.end = JobCancelledError("the job was revoked")
    with pytest.raises(JobCancelledError):
        scene.run()
    assert scene.ledger.last("end") == ("cancelled", "")


def test_cancelling_reaches_what_runs_here_and_all_who_may_get_it() -> None:
    scene = new()
    scene.custody.cancel("job", running=True)
    assert scene.ledger.last("cancel") == ("job", True)
    ((reason, job_id),) = scene.keeper.stopped
    assert (type(reason), job_id) == (JobCancelledError, "job")


def test_cancelling_what_waits_stops_nothing() -> None:
    scene = new()
    scene.custody.cancel("job", running=False)
    assert scene.ledger.last("cancel") == ("job", False)
    assert scene.keeper.stopped == []


def test_what_runs_here_is_stopped_though_nobody_can_be_told() -> None:
    scene = new()
    scene.ledger.away = [BrokerUnavailableError("away")]
    scene.custody.cancel("job", running=True)
    assert len(scene.keeper.stopped) == 1


# Webhooks


NEW = Claimed(TOKEN, now=NOW, is_new=True, owner_died=False, record=RECORD)


def order_with(*events: str, url: str = "https://hooks.example/?key=x") -> Order:
    webhook: Any = {"url": url, **({"events": list(events)} if events else {})}
    request = JobRequest.model_validate({**REQUEST.model_dump(), "webhook": webhook})
    return replace(ORDER, request=request)


@pytest.mark.parametrize(
    ("end", "event"),
    [
        (RESULT, "job.succeeded"),
        (AttemptFailed(NodeFailedError("node 3: x")), "job.failed"),
        (JobCancelledError("the job was revoked"), "job.cancelled"),
        (RuntimeError("x"), "job.failed"),
    ],
)
def test_the_step_that_ends_a_job_has_its_webhook_told(end: Any, event: str) -> None:
    scene = Scene(NEW)
    scene.executor.end = end
    with suppress(JobFailed, CancelledError):
        scene.run(order_with())
    (notice,) = scene.ledger.notices
    assert (notice.event, notice.job_id) == (event, "job")
    assert scene.nudges == [1]


def test_a_start_is_told_once_and_before_the_attempt() -> None:
    scene = Scene(NEW)
    scene.run(order_with("job.started", "job.failed"))
    assert [notice.event for notice in scene.ledger.notices] == ["job.started"]
    again = Scene(replace(NEW, is_new=False, record=AGAIN))
    again.run(order_with("job.started"))
    assert again.ledger.notices == []


def test_a_start_that_cannot_be_told_keeps_nobody_waiting(caplog: Any) -> None:
    scene = Scene(NEW)

    def full(_: Notice) -> bool:
        raise BrokerFullError("full")

    scene.ledger.outbox = SimpleNamespace(put=full)  # type: ignore[assignment]
    assert scene.run(order_with("job.started")) == RESULT
    assert "its webhook is not told of the start: full" in caplog.text


def test_what_cannot_be_said_fails_no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(NEW)

    def broken(*_: Any, **__: Any) -> None:
        raise ValueError("x")

    monkeypatch.setattr(Notices, "of_end", broken)
    assert scene.run(order_with()) == RESULT
    assert scene.ledger.last("end") == ("succeeded", RESULT.manifest.key)


def test_without_a_secret_a_webhook_is_refused_before_anything_is_done() -> None:
    scene = Scene(NEW)
    scene.signed = False
    with pytest.raises(JobFailed) as caught:
        scene.run(order_with())
    assert isinstance(caught.value.error, InvalidRequestError)
    assert "set WEBHOOK_SECRET on all workers" in caught.value.error.message
    assert scene.executor.jobs == []
    assert scene.ledger.notices == []


def test_a_job_that_was_begun_goes_on_where_there_is_no_secret() -> None:
    scene = Scene(replace(NEW, is_new=False, record=AGAIN))
    scene.signed = False
    assert scene.run(order_with()) == RESULT


def test_a_webhook_that_leads_nowhere_is_refused() -> None:
    with pytest.raises(JobFailed) as caught:
        Scene(NEW).run(order_with(url="https://127.1/?key=hidden"))
    message = caught.value.error.message
    assert message.startswith("argument 'webhook.url' has a host that is neither a name nor")
    assert "hidden" not in message


def test_a_job_that_others_have_ended_is_told_of_by_them() -> None:
    scene = Scene(NEW)
    scene.ledger.ours = False
    scene.run(order_with())
    assert scene.ledger.notices == []
    assert scene.nudges == []


def test_a_refused_request_is_told_of_as_soon_as_redis_lets() -> None:
    scene = Scene(NEW)
    scene.ledger.away = [BrokerUnavailableError("x")]
    arguments = {"webhook": {"url": "https://hooks.example/"}, "parms": {}}
    scene.custody.tell_refusal("job", arguments, InvalidRequestError("x"))
    assert [notice.event for notice in scene.ledger.notices] == ["job.failed"]
    scene.custody.tell_refusal("job", {"webhook": {"url": 5}}, InvalidRequestError("x"))
    assert len(scene.ledger.notices) == 1
