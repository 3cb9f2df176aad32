"""Whose a job is and how it ends: custody's decisions, with a ledger and servers of paper."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, Self

import pytest

from tasks.errors import (
    BrokerFullError,
    BrokerUnavailableError,
    CancelledError,
    ComfyUIUnavailableError,
    InternalError,
    InvalidRequestError,
    InvalidWorkflowError,
    JobCancelledError,
    JobError,
    JobExpiredError,
    JobTimeoutError,
    NodeFailedError,
    NodeForbiddenError,
    OutOfMemoryError,
    OutputMissingError,
    PoisonedJobError,
    StorageDeniedError,
    StorageUnavailableError,
)
from tasks.request import JobRequest
from tasks.result import Attempt, JobResult, ObjectRef, Timings
from workers.comfyui import Notifications
from workers.comfyui.model import PromptQueue, PromptState
from workers.execution import Custody, Endings, Executor, Limits, NotNow, Order, Takeover, waiting
from workers.execution import custody as module
from workers.execution.control import HandedOn, LeaseLost, ServerLost, Spared, WorkerLeaving
from workers.execution.custody import _is_meant_for_others
from workers.execution.diagnosis import Diagnosis
from workers.execution.job import AttemptFailed, Job, Start, prompt_id
from workers.execution.keeper import Lease
from workers.execution.manifests import Manifests
from workers.execution.place import Place
from workers.execution.prompts import Prompts
from workers.execution.staging import Staging
from workers.execution.stopping import Stopping
from workers.execution.storing import Storing
from workers.ledger import Cancelled, Claimed, Ended, Held, Record, Route, patience
from workers.ledger.dead_letters import DeadLetter
from workers.ledger.outbox import Notice
from workers.ledger.outcomes import JobFailed, failure_detail, failure_from
from workers.observing import (
    AttemptBegan,
    AttemptEnded,
    Event,
    JobEnded,
    JobLeft,
    JobSuppressed,
    JobTaken,
)
from workers.routing.lanes import Here, Lane, Later
from workers.routing.router import Wanted
from workers.storage.store import StoredObject
from workers.webhooks import Notices, Webhooks

HERE, NEIGHBOUR, AFAR = "http://here", "http://neighbour", "http://127.0.0.1:8188 on another"
REQUEST = JobRequest(workflow={"1": {"class_type": "A", "inputs": {}}}, metadata={"shot": "7"})
ORDER = Order("job", REQUEST, queued_seconds=1.5, priority=3)
REDELIVERED = replace(ORDER, redelivered=True)
TOKEN = 5
# The ledger's clock: that of a worker may be wrong.
NOW = 5000.0
RESULT = JobResult(
    job_id="job",
    prompt_id="p",
    instance=HERE,
    worker="w",
    attempts=[],
    metadata={},
    outputs=[],
    manifest=ObjectRef(bucket="b", key="job/manifest.json"),
    timings=Timings(queued=0, staged=0, executed=0, uploaded=0, total=0),
    values={},
)
RECORD = Record(place=HERE, instance=HERE, client_id="mine", folder="first", since=NOW - 60.0)
CRASHED = Attempt(
    number=1,
    instance=HERE,
    prompt_id=prompt_id("job", 1),
    error="WorkerDiedError: its worker vanished",
    seconds=1.0,
)
# Had before, and let go of.
AGAIN = RECORD.model_copy(
    update={"attempts": (CRASHED.model_copy(update={"error": "PromptLostError: x"}),)}
)


class Ledger:
    """One job; what is written to it is kept in order."""

    def __init__(self, verdict: Any) -> None:
        self.verdict = verdict
        self.nonces: list[str] = []
        self.kept: Record | None = getattr(verdict, "record", None)
        self.live = {HERE}
        self.ours = True
        self.away: list[Exception] = []
        self.written: list[tuple[Any, ...]] = []
        self.struck_off: tuple[str, list[str]] | None = None
        # What ends and starts have put into the outbox.
        self.notices: list[Notice] = []
        self.outbox = self

    def claim(self, job_id: str, record: Record, nonce: str) -> Any:
        assert job_id == "job"
        self._answer()
        self.nonces.append(nonce)
        if isinstance(self.verdict, Claimed) and self.verdict.is_new:
            return replace(self.verdict, record=record)
        return self.verdict

    def save(self, _: str, token: int, record: Record) -> bool:
        return self._write("save", token, record)

    def release(self, _: str, token: int, record: Record, pause: float = 0.0) -> bool:
        return self._write("release", token, record, pause)

    def end(
        self,
        _: str,
        token: int,
        outcome: str,
        detail: str = "",
        letter: DeadLetter | None = None,
        *,
        notice: Notice | None = None,
    ) -> bool:
        if notice is not None and self.ours and not self.away:
            self.notices.append(notice)
        return self._write("end", token, outcome, detail, *([letter] if letter else []))

    def put(self, notice: Notice) -> bool:
        self._answer()
        self.notices.append(notice)
        return True

    def cancel(self, job_id: str, *, running: bool) -> None:
        self._answer()
        self.written.append(("cancel", job_id, running))

    def record(self, _: str) -> Record | None:
        self._answer()
        return self.kept

    def ended(self, _: str) -> Ended | None:
        self._answer()
        return self.verdict if isinstance(self.verdict, Ended) else None

    def live_places(self) -> frozenset[str]:
        self._answer()
        return frozenset(self.live)

    def order_stop(self, place: str, prompt: str) -> None:
        self.written.append(("stop", place, prompt))

    def stopped(self, place: str, prompts: list[str]) -> None:
        self.struck_off = (place, prompts)

    def _write(self, what: str, token: int, *values: Any) -> bool:
        assert token == TOKEN
        self._answer()
        self.written.append((what, *values))
        return self.ours

    def _answer(self) -> None:
        if self.away:
            raise self.away.pop(0)

    @property
    def steps(self) -> list[str]:
        return [what for what, *_ in self.written]

    def last(self, what: str) -> tuple[Any, ...]:
        """What was written of this kind, which was written once."""
        ((_, *values),) = (one for one in self.written if one[0] == what)
        return tuple(values)


class Attempts:
    """Ends an attempt as it is told."""

    def __init__(self) -> None:
        self.end: Exception | JobResult = RESULT
        self.manifest: Exception | JobResult | None = None
        # How the manifest was asked for, by who must know and by who may do without.
        self.asked: list[str] = []
        self.bound: list[bool] = []
        self.jobs: list[Job] = []
        self.stops_prompt = False
        self.recalled: list[str] = []

    def folder(self, job_id: str, _: JobRequest) -> str:
        return f"as asked now/{job_id}"

    def run(self, job: Job, lease: Lease, _report: Any) -> JobResult:
        self.jobs.append(job)
        self.bound.append(lease.now() < lease.bound_until)
        lease.prompt_stopped = self.stops_prompt
        return _given(self.end)

    def committed(self, _job: Job, _lease: Lease) -> JobResult | None:
        self.asked.append("patiently")
        return _given(self.manifest)

    def committed_before(self, _job: Job) -> JobResult | None:
        self.asked.append("soon")
        return _given(self.manifest)

    def recall(self, manifest: str, _: JobRequest) -> JobResult | None:
        self.recalled.append(manifest)
        return _given(self.manifest)


@dataclass
class Server:
    """A ComfyUI with at most one prompt, which it has rendered when it is asked for."""

    base_url = HERE

    state: PromptState | Exception = PromptState.UNKNOWN
    running: bool = True
    asked: list[str] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    freed: int = 0

    def state_of(self, prompt: str) -> PromptState:
        self.asked.append(prompt)
        return _given(self.state)

    def queue(self) -> PromptQueue:
        if _given(self.state) is not PromptState.QUEUED:
            return PromptQueue((), ())
        job = (prompt_id("job", 1),)
        return PromptQueue(job, ()) if self.running else PromptQueue(("another",), job)

    def cancel(self, prompt: str) -> None:
        self.cancelled.append(prompt)

    def try_cancel(self, prompt: str) -> bool:
        self.cancel(prompt)
        return True

    def try_free(self) -> None:
        self.freed += 1

    def submit(self, *_: Any, export: Any) -> None:
        pass

    def history(self, _: str) -> dict[str, Any]:
        images = {"images": [{"filename": "a.png"}]}
        return {"status": {"status_str": "success"}, "outputs": {"9": images}}

    @contextmanager
    def view(self, _: Any, check: Callable[[], object]) -> Iterator[None]:
        check()
        yield

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Keeper:
    """Keeps nothing, but remembers whom it was to stop."""

    def __init__(self) -> None:
        self.stopped: list[tuple[Exception, str | None]] = []

    @contextmanager
    def holding(self, job_id: str, claim: Claimed, claimed_at: float) -> Iterator[Lease]:
        self.lease = Lease(job_id, claim.token, claimed_at + 12.0, claim.now - claimed_at)
        yield self.lease

    def confirm(self, lease: Lease) -> None:
        lease.control.check()

    def store(self, lease: Lease, seconds: float | None = None) -> None:
        pass

    def execute(self, lease: Lease) -> None:
        pass

    def stop_jobs(self, reason: Exception, job_id: str | None = None) -> None:
        self.stopped.append((reason, job_id))


class Router:
    """Sends jobs where the test says; a job stays if it says nothing."""

    def __init__(self) -> None:
        self.way: Here | Lane = Here()
        self.after: Lane | Later | Exception | None = None
        self.unexplained: Exception | None = None
        self.unfit_places: set[str] | Exception = set()

    def decide(self, _job: Wanted) -> Here | Lane:
        return self.way

    def after_refusal(self, _job: Wanted) -> Lane | Later | None:
        if isinstance(self.after, Exception):
            raise self.after
        return self.after

    def explained(self, _job: Wanted, error: InvalidWorkflowError) -> InvalidWorkflowError:
        if self.unexplained is not None:
            raise self.unexplained
        return InvalidWorkflowError(f"explained: {error.message}")

    def unfit(self, _job: Wanted) -> set[str]:
        if isinstance(self.unfit_places, Exception):
            raise self.unfit_places
        return self.unfit_places


class Scene:
    """A worker at `HERE` whose neighbour it can reach, to which a message comes."""

    def __init__(self, verdict: Any = None) -> None:
        self.ledger = Ledger(verdict)
        self.executor: Any = Attempts()
        self.keeper = Keeper()
        self.router = Router()
        self.server = Server()
        self.neighbour = Server()
        self.removed: list[Job] = []
        self.takes_jobs = True
        self.max_attempts = self.max_crashes = 3
        self.events: list[Event] = []
        self.signed = True
        self.nudges: list[int] = []

    @property
    def custody(self) -> Custody:
        paper: Any = self.ledger
        webhooks = Webhooks(
            Notices(signed=self.signed),
            paper.outbox,
            lambda: self.nudges.append(len(self.ledger.notices)),
        )
        return Custody(
            ledger=paper,
            keeper=self.keeper,  # type: ignore[arg-type]
            executor=self.executor,
            removal=SimpleNamespace(remove=self.removed.append),  # type: ignore[arg-type]
            router=self.router,  # type: ignore[arg-type]
            takeover=Takeover(
                ledger=paper,
                comfyui=self.server,  # type: ignore[arg-type]
                server_at={HERE: self.server, NEIGHBOUR: self.neighbour}.__getitem__,  # type: ignore[arg-type]
                place=Place(HERE, "this-host"),
            ),
            comfyui=self.server,  # type: ignore[arg-type]
            takes_jobs=lambda: self.takes_jobs,
            place=Place(HERE, "this-host"),
            client_id="mine",
            limits=Limits(self.max_attempts, self.max_crashes),
            webhooks=webhooks,
            endings=Endings(paper, webhooks, self.events.append),
            observe=self.events.append,
        )

    def run(self, order: Order = ORDER) -> JobResult:
        return self.custody.run(order, lambda _: None)

    def postponed(self) -> NotNow:
        with pytest.raises(NotNow) as caught:
            self.run()
        return caught.value

    def failed(self) -> JobFailed:
        with pytest.raises(JobFailed) as caught:
            self.run()
        return caught.value

    @property
    def job(self) -> Job:
        """What was attempted, which was attempted once."""
        (job,) = self.executor.jobs
        return job


def _given(value: Any) -> Any:
    if isinstance(value, Exception):
        raise value
    return value


def new() -> Scene:
    return Scene(Claimed(TOKEN, NOW, is_new=True, owner_died=False, record=RECORD))


def again(record: Record = AGAIN) -> Scene:
    return Scene(Claimed(TOKEN, NOW, is_new=False, owner_died=False, record=record))


def orphaned(record: Record = RECORD, **changes: Any) -> Scene:
    changed = record.model_copy(update=changes)
    return Scene(Claimed(TOKEN, NOW, is_new=False, owner_died=True, record=changed))


def left(record: Record = RECORD, **changes: Any) -> Scene:
    """Orphaned by one that had said it was leaving."""
    scene = orphaned(record, **changes)
    scene.ledger.verdict = replace(scene.ledger.verdict, owner_left=True)
    return scene


@pytest.fixture(autouse=True)
def _redis_is_asked_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "REDIS_PAUSE", 0.0)


# The helpers


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


@pytest.mark.parametrize(
    ("route", "others"),
    [
        (Route(), False),
        (Route(prefer=HERE), False),
        (Route(prefer=NEIGHBOUR), True),
        (Route(avoid=(HERE,)), True),
        (Route(avoid=(NEIGHBOUR,)), False),
    ],
)
def test_whom_a_job_is_meant_for(route: Route, others: bool) -> None:
    assert _is_meant_for_others(route, HERE) == others


# What ended with its worker


def crashed(scene: Scene) -> Record:
    """What is kept of a job that was taken over and begun."""
    assert scene.run() == RESULT
    return scene.ledger.last("save")[0]


def test_a_vanished_worker_is_an_attempt_that_ended() -> None:
    record = crashed(orphaned(AGAIN, since=NOW - 7.0, prompt=2))
    attempt = record.attempts[-1]
    assert (attempt.number, attempt.instance) == (2, HERE)
    assert attempt.prompt_id == prompt_id("job", 2)
    assert attempt.error == "WorkerDiedError: its worker vanished"
    assert 7.0 <= attempt.seconds < 30.0
    assert (record.number, record.crashes, record.failures) == (3, 1, 0)


def test_the_log_says_of_which_attempt_the_worker_vanished(
    caplog: pytest.LogCaptureFixture,
) -> None:
    orphaned().run()
    assert "attempt 1 on http://here ended with its worker" in caplog.text


def test_a_vanished_workers_job_waits_a_little_for_its_server() -> None:
    route = crashed(orphaned()).route
    assert route.prefer == HERE
    assert 0 < route.until - NOW <= module._PREFER_SECONDS + 1.0


def test_a_clock_that_was_set_back_is_no_negative_time() -> None:
    assert crashed(orphaned(since=NOW + 3600)).attempts[-1].seconds == 0.0


def test_who_said_that_it_leaves_is_an_attempt_that_ended_and_no_crash() -> None:
    record = crashed(left(crashes=1))
    assert record.attempts[-1].error == "WorkerDiedError: its worker vanished"
    assert (record.number, record.crashes, record.failures) == (2, 1, 0)
    assert record.route.prefer == HERE


@pytest.mark.parametrize(
    ("state", "running", "crashes"),
    [
        pytest.param(PromptState.QUEUED, False, 0, id="waits"),
        pytest.param(PromptState.QUEUED, True, 1, id="runs"),
        pytest.param(PromptState.ENDED, False, 1, id="has-ended"),
        pytest.param(PromptState.UNKNOWN, False, 1, id="unknown"),
    ],
)
@pytest.mark.parametrize("place", [HERE, NEIGHBOUR])
def test_a_worker_did_not_die_of_what_waits_in_the_queue(
    place: str, state: PromptState, running: bool, crashes: int
) -> None:
    scene = orphaned(place=place, instance=place)
    server = scene.server if place == HERE else scene.neighbour
    server.state, server.running = state, running
    record = crashed(scene)
    assert record.crashes == crashes
    assert record.attempts[-1].error == "WorkerDiedError: its worker vanished"


def test_a_worker_may_have_died_of_what_cannot_be_asked_for() -> None:
    scene = orphaned(place=NEIGHBOUR, instance=NEIGHBOUR)
    scene.neighbour.state = ComfyUIUnavailableError("away")
    assert crashed(scene).crashes == 1
    assert crashed(orphaned(place=AFAR, instance="http://127.0.0.1:8188")).crashes == 1


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


def test_when_a_job_was_enqueued_its_first_message_tells_for_all_attempts() -> None:
    scene = new()
    before = time.time()
    scene.run()
    assert before - 1.5 <= scene.job.enqueued_at <= time.time() - 1.5
    later = again(AGAIN.model_copy(update={"enqueued_at": 1234.5}))
    later.run()
    assert later.job.enqueued_at == 1234.5


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


@pytest.mark.parametrize("field", ["expired", "revoked"])
def test_what_is_not_to_be_begun_need_not_wait_for_another_server(field: str) -> None:
    scene = new() if field == "expired" else Scene(Cancelled(TOKEN, None))
    scene.router.way = Lane.of("", ["here"])
    with pytest.raises(CancelledError):
        scene.run(replace(ORDER, **{field: True}))
    assert scene.executor.jobs == []


# What the server refuses


REFUSED = AttemptFailed(InvalidWorkflowError("the server refuses it"))


def refused(after: Lane | Later | Exception | None = None) -> Scene:
    scene = new()
    scene.executor.end, scene.router.after = REFUSED, after
    return scene


def test_what_another_server_can_run_goes_there_at_no_cost() -> None:
    lane = Lane.of("", ["here"])
    scene = refused(lane)
    later = scene.postponed()
    assert (later.seconds, later.lane, later.error) == (0.0, lane, None)
    record, pause = scene.ledger.last("release")
    assert (record.attempts, record.spent, pause) == ((), True, 0.0)


def test_what_no_server_can_run_fails_and_says_why() -> None:
    assert refused().failed().error.message == "explained: the server refuses it"


@pytest.mark.parametrize("leaf", [BrokerUnavailableError, BrokerFullError])
@pytest.mark.parametrize("step", ["after", "unexplained"])
def test_while_redis_does_not_tell_what_others_can_do_nothing_is_decided(
    leaf: type[JobError], step: str
) -> None:
    scene = refused()
    setattr(scene.router, step, leaf("Redis is away"))
    later = scene.postponed()
    assert (later.lane, later.error) == (None, None)
    assert scene.ledger.last("release")[0].attempts == ()


def test_a_refused_job_that_cannot_be_judged_fails_as_the_server_has_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert refused(KeyError("a fault")).failed().error.message == "the server refuses it"
    assert "a fault" in caplog.text


def test_a_job_that_cannot_be_judged_is_tried_again_all_the_same() -> None:
    scene = new()
    scene.executor.end = AttemptFailed(OutOfMemoryError("x"))
    scene.router.unfit_places = KeyError("a fault")
    assert scene.postponed().error is not None


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


# What is done about the prompt before


@pytest.mark.parametrize("state", [PromptState.QUEUED, PromptState.ENDED])
def test_a_prompt_that_this_server_knows_is_adopted(state: PromptState) -> None:
    scene = orphaned(client_id="the one before")
    scene.server.state = state
    assert scene.run() == RESULT
    assert scene.server.asked == [prompt_id("job", 1)]
    assert (scene.job.start, scene.job.number) == (Start.ADOPT, 2)
    assert scene.job.prompt_id == prompt_id("job", 1)
    # Only that client hears of it.
    assert scene.job.client_id == "the one before"
    assert 60.0 <= scene.job.age < 90.0
    assert scene.ledger.steps == ["save", "end"]
    assert scene.server.cancelled == []
    assert scene.ledger.struck_off == (HERE, [prompt_id("job", 1)])


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


def test_a_prompt_that_this_server_has_forgotten_is_submitted_anew() -> None:
    scene = orphaned(client_id="the one before")
    assert scene.run() == RESULT
    assert (scene.job.start, scene.job.number, scene.job.prompt) == (Start.SUBMIT, 2, 2)
    assert (scene.job.client_id, scene.job.age) == ("mine", 0.0)
    (saved,) = scene.ledger.last("save")
    # Before it is submitted: whoever comes next must find it.
    assert (saved.prompt, saved.place, saved.client_id) == (2, HERE, "mine")
    assert NOW <= saved.since < NOW + 30.0
    # As its first message asked, whatever this one asks.
    assert saved.folder == scene.job.folder == "first"
    assert saved.crashes == 1


def test_a_prompt_that_ended_on_a_server_within_reach_is_collected_there() -> None:
    scene = orphaned(place=NEIGHBOUR, instance=NEIGHBOUR)
    scene.neighbour.state = PromptState.ENDED
    assert scene.run() == RESULT
    assert (scene.job.start, scene.job.instance) == (Start.COLLECT, NEIGHBOUR)
    assert scene.job.prompt_id == prompt_id("job", 1)
    assert (scene.server.asked, scene.neighbour.cancelled) == ([], [])


@pytest.mark.parametrize("state", [PromptState.QUEUED, PromptState.UNKNOWN])
def test_a_prompt_that_still_runs_elsewhere_is_stopped_and_submitted_here(
    state: PromptState,
) -> None:
    scene = orphaned(place=NEIGHBOUR, instance=NEIGHBOUR)
    scene.neighbour.state = state
    assert scene.run() == RESULT
    # One that is unknown may be on its way.
    assert scene.neighbour.cancelled == [prompt_id("job", 1)]
    assert (scene.job.start, scene.job.instance, scene.job.prompt) == (Start.SUBMIT, HERE, 2)
    assert scene.ledger.steps == ["save", "end"]


def test_a_prompt_on_a_server_that_does_not_answer_is_ordered_to_stop() -> None:
    scene = orphaned(place=NEIGHBOUR, instance=NEIGHBOUR)
    scene.neighbour.state = ComfyUIUnavailableError("away")
    assert scene.run() == RESULT
    assert scene.ledger.last("stop") == (NEIGHBOUR, prompt_id("job", 1))
    assert scene.job.start is Start.SUBMIT


def test_a_prompt_on_another_hosts_loopback_is_ordered_to_stop() -> None:
    scene = orphaned(place=AFAR, instance="http://127.0.0.1:8188")
    assert scene.run() == RESULT
    assert scene.ledger.last("stop") == (AFAR, prompt_id("job", 1))
    assert scene.ledger.steps == ["stop", "save", "end"]


def test_a_spent_prompt_is_not_asked_for() -> None:
    scene = again(AGAIN.model_copy(update={"spent": True, "bypass": ("3",)}))
    scene.server.state = PromptState.ENDED
    assert scene.run() == RESULT
    assert (scene.server.asked, scene.job.start, scene.job.prompt) == ([], Start.SUBMIT, 2)
    assert scene.job.bypass == ("3",)
    assert not scene.ledger.last("save")[0].spent


def test_a_job_that_is_committed_touches_no_gpu() -> None:
    scene = orphaned()
    scene.executor.manifest = RESULT
    assert scene.run() == RESULT
    assert (scene.executor.jobs, scene.server.asked) == ([], [])
    assert scene.ledger.written == [("end", "succeeded", "job/manifest.json")]


def test_a_job_that_others_took_over_before_it_began_is_left_to_them() -> None:
    scene = again()
    scene.ledger.ours = False
    scene.postponed()
    assert scene.executor.jobs == []
    assert scene.ledger.steps == ["save"]


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


def routed(**route: Any) -> Scene:
    until = NOW + 60.0
    scene = again(AGAIN.model_copy(update={"route": Route(**{"until": until, **route})}))
    scene.ledger.live = {HERE, NEIGHBOUR}
    return scene


@pytest.mark.parametrize("route", [{"prefer": NEIGHBOUR}, {"avoid": (HERE,)}])
def test_a_job_is_left_to_whom_it_is_meant_for(route: dict[str, Any]) -> None:
    scene = routed(**route)
    later = scene.postponed()
    assert (0 < later.seconds < 2.0, later.error) == (True, None)
    (record, pause) = scene.ledger.last("release")
    assert (record.attempts, record.route.until) == (AGAIN.attempts, NOW + 60.0)
    assert pause == 0.0
    assert scene.executor.jobs == []


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


def test_a_job_of_which_nobody_knows_for_whom_it_is_is_taken_before_it_waits() -> None:
    scene = routed(prefer=NEIGHBOUR)

    def away() -> frozenset[str]:
        raise BrokerUnavailableError("away")

    scene.ledger.live_places = away  # type: ignore[method-assign]
    scene.postponed()
    assert [type(one) for one in scene.events] == [JobTaken, AttemptEnded, JobLeft]


@pytest.mark.parametrize(
    ("state", "waits"),
    [
        (PromptState.QUEUED, True),
        (PromptState.ENDED, False),
        (PromptState.UNKNOWN, False),
        (ComfyUIUnavailableError("away"), False),
    ],
)
def test_a_prompt_is_left_to_its_place_only_while_it_runs_there(
    state: PromptState | Exception, waits: bool
) -> None:
    scene = orphaned(place=NEIGHBOUR, instance=NEIGHBOUR)
    scene.ledger.live = {HERE, NEIGHBOUR}
    scene.neighbour.state = state
    if waits:
        assert scene.postponed().error is None
    else:
        assert scene.run() == RESULT
    assert (scene.executor.jobs == []) == waits


@pytest.mark.parametrize(
    "route",
    [
        {},
        {"prefer": HERE},
        {"prefer": "http://dead"},
        {"avoid": (NEIGHBOUR,)},
        {"avoid": (HERE, NEIGHBOUR)},
        {"prefer": NEIGHBOUR, "until": 1.0},
        {"avoid": (HERE,), "until": 1.0},
    ],
    ids=str,
)
def test_a_wish_that_nobody_can_fulfil_holds_nobody_up(route: dict[str, Any]) -> None:
    scene = routed(**route)
    assert scene.run() == RESULT


@pytest.mark.parametrize(
    ("scene", "bound"),
    [
        pytest.param(new, False, id="new"),
        pytest.param(again, False, id="anywhere"),
        pytest.param(lambda: routed(prefer=HERE), True, id="here"),
        pytest.param(lambda: routed(avoid=("http://dead",)), True, id="not there"),
        pytest.param(lambda: routed(prefer=HERE, until=NOW - 1.0), False, id="here, once"),
        # Here is the prompt that can be gone on with.
        pytest.param(orphaned, True, id="orphaned"),
    ],
)
def test_a_job_may_go_to_any_other_server_unless_a_wish_holds(
    scene: Callable[[], Scene], bound: bool
) -> None:
    one = scene()
    assert one.run() == RESULT
    assert one.executor.bound == [bound]


# How an attempt fails


def test_a_failed_attempt_is_kept_and_the_job_released_for_another_one() -> None:
    scene = new()
    error = ComfyUIUnavailableError("it is down")
    scene.executor.end = AttemptFailed(error)
    later = scene.postponed()
    assert later.error is error
    (record, pause) = scene.ledger.last("release")
    assert pause == later.seconds > 0
    (attempt,) = record.attempts
    assert (attempt.number, attempt.instance) == (1, HERE)
    assert attempt.error == "ComfyUIUnavailableError: it is down"
    assert (record.failures, record.crashes, record.spent) == (1, 0, False)
    assert record.route == Route()
    assert scene.ledger.steps == ["release"]


def test_with_a_server_elsewhere_the_next_attempt_avoids_this_one() -> None:
    scene = new()
    scene.ledger.live = {HERE, NEIGHBOUR}
    scene.executor.end = AttemptFailed(ComfyUIUnavailableError("it is down"))
    later = scene.postponed()
    (record, _) = scene.ledger.last("release")
    assert record.route.avoid == (HERE,)
    assert record.route.until > NOW + later.seconds


def test_whether_there_is_an_elsewhere_need_not_be_known() -> None:
    scene = new()
    scene.executor.end = AttemptFailed(ComfyUIUnavailableError("it is down"))

    def away() -> frozenset[str]:
        raise BrokerUnavailableError("away")

    scene.ledger.live_places = away  # type: ignore[method-assign]
    scene.postponed()
    assert scene.ledger.last("release")[0].route == Route()


def test_out_of_memory_frees_memory_and_comes_again_at_once() -> None:
    scene = new()
    scene.executor.end = AttemptFailed(OutOfMemoryError("x"))
    assert scene.postponed().seconds == 0.0
    (record, _) = scene.ledger.last("release")
    assert scene.server.freed == 1
    assert (record.spent, record.route.prefer) == (True, HERE)


def test_a_missing_output_has_its_node_executed_again() -> None:
    scene = new()
    scene.executor.end = AttemptFailed(OutputMissingError("x"), rendered=True, nodes=("9", "12"))
    scene.postponed()
    (record, _) = scene.ledger.last("release")
    # Where one file is gone others may be, too: there is but one such attempt.
    assert (record.spent, record.bypass) == (True, ("9", "12"))


def test_nodes_are_executed_again_for_a_missing_output_only() -> None:
    scene = new()
    scene.executor.end = AttemptFailed(StorageUnavailableError("x"), rendered=True, nodes=("9",))
    scene.postponed()
    assert scene.ledger.last("release")[0].bypass == ()


def test_a_server_that_died_of_the_job_counts_as_a_crash() -> None:
    scene = new()
    scene.executor.end = AttemptFailed(ComfyUIUnavailableError("x"), executing=True)
    scene.postponed()
    (record, _) = scene.ledger.last("release")
    assert (record.crashes, record.accused) == (1, True)


@pytest.mark.parametrize(
    ("error", "crashes", "accused"),
    [(ComfyUIUnavailableError("x"), 2, True), (StorageUnavailableError("x"), 1, False)],
)
def test_only_the_last_attempt_is_accused(error: JobError, crashes: int, accused: bool) -> None:
    scene = again(AGAIN.model_copy(update={"crashes": 1}))
    scene.executor.end = AttemptFailed(error, executing=True)
    scene.postponed()
    (record, _) = scene.ledger.last("release")
    assert (record.crashes, record.accused) == (crashes, accused)


ACCUSED = AGAIN.model_copy(update={"crashes": 2, "accused": True})


@pytest.mark.parametrize(
    ("place", "state", "crashes"),
    [
        pytest.param(HERE, PromptState.QUEUED, 1, id="goes-on"),
        pytest.param(HERE, PromptState.ENDED, 1, id="has-ended"),
        pytest.param(NEIGHBOUR, PromptState.ENDED, 1, id="has-ended-there"),
        pytest.param(HERE, PromptState.UNKNOWN, 2, id="is-forgotten"),
        pytest.param(NEIGHBOUR, PromptState.UNKNOWN, 2, id="is-forgotten-there"),
        pytest.param(NEIGHBOUR, PromptState.QUEUED, 2, id="is-stopped-there"),
        pytest.param(NEIGHBOUR, ComfyUIUnavailableError("away"), 2, id="cannot-be-asked-for"),
    ],
)
def test_a_server_that_still_has_the_prompt_did_not_die_of_it(
    place: str, state: PromptState | Exception, crashes: int
) -> None:
    scene = again(ACCUSED.model_copy(update={"place": place, "instance": place}))
    (scene.server if place == HERE else scene.neighbour).state = state
    assert scene.run() == RESULT
    (record,) = scene.ledger.last("save")
    # Acquitted or not, it is judged once.
    assert (record.crashes, record.accused) == (crashes, False)


def test_who_is_not_accused_is_not_acquitted() -> None:
    scene = again(ACCUSED.model_copy(update={"accused": False}))
    scene.server.state = PromptState.QUEUED
    assert scene.run() == RESULT
    assert scene.ledger.last("save")[0].crashes == 2


@pytest.mark.parametrize("what", ["the server", "the store"])
def test_a_job_of_which_nobody_could_find_out_stays_accused(what: str) -> None:
    scene = again(ACCUSED)
    if what == "the server":
        scene.server.state = ComfyUIUnavailableError("away")
    else:
        scene.executor.manifest = StorageUnavailableError("away")
    scene.postponed()
    kept = scene.ledger.last("release")[0]
    # The attempt that did not begin says nothing about the one before.
    assert (kept.crashes, kept.accused) == (2, True)


def test_a_failure_of_the_store_counts_for_nothing_and_keeps_the_prompt() -> None:
    scene = new()
    scene.executor.end = AttemptFailed(StorageUnavailableError("x"), rendered=True)
    scene.postponed()
    (record, _) = scene.ledger.last("release")
    assert (record.failures, record.spent, record.route.prefer) == (0, False, HERE)


@pytest.mark.parametrize(
    ("error", "failures"), [(NodeFailedError("x"), 0), (ComfyUIUnavailableError("x"), 2)]
)
def test_a_job_fails_with_its_error_and_all_its_attempts(error: JobError, failures: int) -> None:
    scene = again(AGAIN.model_copy(update={"failures": failures}))
    scene.executor.end = AttemptFailed(error)
    failed = scene.failed()
    assert failed.error is error
    assert [one.number for one in failed.attempts] == [1, 2]
    (outcome, detail) = scene.ledger.last("end")
    assert outcome == "failed"
    assert failure_from(detail).attempts == failed.attempts


def test_an_end_is_recorded_however_long_that_takes() -> None:
    scene = new()
    scene.executor.end = AttemptFailed(NodeFailedError("x"))
    end = scene.ledger.end
    refusals = iter([BrokerUnavailableError("away"), BrokerFullError("full")])

    def refusing(*args: Any, **named: Any) -> bool:
        if error := next(refusals, None):
            raise error
        return end(*args, **named)

    scene.ledger.end = refusing  # type: ignore[method-assign]
    scene.failed()
    assert scene.ledger.steps == ["end"]


@pytest.mark.parametrize("error", [NodeFailedError("x"), JobTimeoutError("x")], ids=str)
def test_the_failure_of_a_job_that_others_have_by_now_is_not_told(error: JobError) -> None:
    # Cut off from Redis it could not know; they may well succeed.
    scene = new()
    scene.ledger.ours = False
    scene.executor.end = AttemptFailed(error)
    scene.postponed()


def test_the_prompt_of_a_job_that_fails_executes_for_nobody() -> None:
    scene = again()
    scene.max_attempts = 1
    scene.server.state = PromptState.QUEUED
    scene.executor.end = AttemptFailed(ComfyUIUnavailableError("x"))
    scene.failed()
    assert scene.server.cancelled == [prompt_id("job", 1)]


@pytest.mark.parametrize("error", [NodeFailedError("x"), JobTimeoutError("x")], ids=str)
def test_a_prompt_that_is_over_is_not_stopped(error: JobError) -> None:
    scene = again()
    scene.executor.end = AttemptFailed(error)
    scene.failed()
    assert scene.server.cancelled == []


@pytest.mark.parametrize(
    ("changes", "here", "there", "ordered"),
    [
        ({}, 1, 0, 0),
        ({"place": NEIGHBOUR, "instance": NEIGHBOUR}, 0, 1, 0),
        ({"place": AFAR, "instance": "http://127.0.0.1:8188"}, 0, 0, 1),
        ({"spent": True}, 0, 0, 0),
    ],
    ids=["here", "there", "afar", "spent"],
)
def test_the_prompt_before_is_stopped_when_a_job_fails_before_its_next_attempt(
    changes: dict[str, Any], here: int, there: int, ordered: int
) -> None:
    scene = again(AGAIN.model_copy(update={"failures": 2, **changes}))
    scene.executor.manifest = StorageDeniedError("no")
    scene.failed()
    prompt = prompt_id("job", 1)
    assert scene.server.cancelled == [prompt] * here
    assert scene.neighbour.cancelled == [prompt] * there
    # Its end comes last.
    assert scene.ledger.steps == ["stop"] * ordered + ["end"]


def test_a_job_fails_though_nobody_can_be_told_to_stop_its_prompt() -> None:
    scene = again(AGAIN.model_copy(update={"failures": 2, "place": AFAR}))
    scene.executor.manifest = StorageDeniedError("no")
    scene.ledger.order_stop = _refusing  # type: ignore[method-assign]
    assert type(scene.failed().error) is StorageDeniedError
    assert scene.ledger.steps == ["end"]


# An error before the attempt has begun says nothing about the prompt before

BEFORE = {
    "the manifest cannot be looked for": StorageUnavailableError("away"),
    "nobody knows who else is there": BrokerUnavailableError("away"),
}


def fails_before_it_begins(why: str, record: Record) -> Record:
    scene = routed(prefer=NEIGHBOUR)
    scene.ledger.verdict = replace(
        scene.ledger.verdict,
        record=record.model_copy(update={"route": Route(prefer=NEIGHBOUR, until=NOW + 60.0)}),
    )
    if "manifest" in why:
        scene.ledger.live = {HERE}
        scene.executor.manifest = BEFORE[why]
    else:
        live = scene.ledger.live_places
        errors = iter([BEFORE[why]])

        def away() -> frozenset[str]:
            if error := next(errors, None):
                raise error
            return live()

        scene.ledger.live_places = away  # type: ignore[method-assign]
    scene.postponed()
    assert scene.executor.jobs == []
    (kept, _) = scene.ledger.last("release")
    return kept


@pytest.mark.parametrize("why", BEFORE)
def test_a_prompt_that_may_be_adopted_may_still_be(why: str) -> None:
    kept = fails_before_it_begins(why, AGAIN)
    assert (kept.spent, kept.prompt, kept.failures) == (False, 1, 0)


@pytest.mark.parametrize("why", BEFORE)
def test_a_prompt_that_is_spent_stays_spent(why: str) -> None:
    # Else it is adopted, and its own failure comes once more.
    kept = fails_before_it_begins(why, AGAIN.model_copy(update={"spent": True, "bypass": ("9",)}))
    assert (kept.spent, kept.bypass) == (True, ("9",))


def test_the_cache_stays_bypassed_over_other_failures() -> None:
    scene = again(AGAIN.model_copy(update={"spent": True, "bypass": ("9",)}))
    scene.executor.end = AttemptFailed(ComfyUIUnavailableError("x"))
    scene.postponed()
    assert scene.ledger.last("release")[0].bypass == ("9",)


# Poison


def test_a_job_that_took_too_many_down_is_put_aside_untried() -> None:
    scene = orphaned(AGAIN, crashes=2)
    failed = scene.failed()
    assert type(failed.error) is PoisonedJobError
    assert "took its worker or its ComfyUI down 3 times" in failed.error.message
    assert "comfyfleet dead show job" in failed.error.message
    assert scene.executor.jobs == []
    # In one step: a worker that dies in between must not lose the request.
    (outcome, detail, letter) = scene.ledger.last("end")
    assert outcome == "failed"
    assert type(failure_from(detail).error) is PoisonedJobError
    assert letter.request == {"workflow": REQUEST.workflow, "metadata": REQUEST.metadata}
    assert (letter.job_id, letter.priority, letter.is_signed) == ("job", 3, False)
    assert letter.error == "WorkerDiedError: its worker vanished"
    assert [one.number for one in letter.attempts] == [1, 2]
    assert letter.attempts == failed.attempts


def test_a_replay_of_a_signed_job_is_known_to_need_a_signature() -> None:
    scene = orphaned(AGAIN, crashes=2)
    with pytest.raises(JobFailed):
        scene.run(replace(ORDER, is_signed=True))
    assert scene.ledger.last("end")[2].is_signed


@pytest.mark.parametrize(
    "place", [pytest.param(HERE, id="here"), pytest.param(NEIGHBOUR, id="there")]
)
@pytest.mark.parametrize(
    "state", [PromptState.QUEUED, PromptState.UNKNOWN, ComfyUIUnavailableError("away")], ids=repr
)
def test_the_prompt_of_a_job_that_is_put_aside_is_stopped(
    place: str, state: PromptState | Exception
) -> None:
    scene = orphaned(AGAIN, crashes=2, place=place, instance=place)
    (scene.server if place == HERE else scene.neighbour).state = state
    assert type(scene.failed().error) is PoisonedJobError
    cancelled = scene.server.cancelled, scene.neighbour.cancelled
    stopped = [prompt_id("job", 1)]
    assert cancelled == ((stopped, []) if place == HERE else ([], stopped))
    assert scene.ledger.steps == ["end"]


def test_a_spent_prompt_of_a_job_that_is_put_aside_is_not_stopped() -> None:
    scene = orphaned(AGAIN, crashes=2, spent=True)
    scene.server.state = PromptState.ENDED
    assert type(scene.failed().error) is PoisonedJobError
    assert (scene.server.asked, scene.server.cancelled) == ([], [])


@pytest.mark.parametrize(
    ("place", "start"), [(HERE, Start.ADOPT), (NEIGHBOUR, Start.COLLECT)], ids=["here", "there"]
)
def test_what_a_poisoned_job_has_rendered_in_spite_of_all_is_collected(
    place: str, start: Start
) -> None:
    scene = orphaned(AGAIN, crashes=2, place=place, instance=place)
    (scene.server if place == HERE else scene.neighbour).state = PromptState.ENDED
    assert scene.run() == RESULT
    assert scene.job.start is start
    assert scene.ledger.last("save")[0].crashes == 3
    assert scene.ledger.last("end") == ("succeeded", "job/manifest.json")


def test_a_poisoned_job_out_of_reach_is_put_aside() -> None:
    scene = orphaned(AGAIN, crashes=2, place=AFAR, instance="http://127.0.0.1:8188")
    assert type(scene.failed().error) is PoisonedJobError
    assert scene.ledger.steps == ["stop", "end"]


@pytest.mark.parametrize("orphans", [left, again])
def test_a_job_of_as_many_crashes_is_put_aside_whoever_had_it_last(
    orphans: Callable[[Record], Scene],
) -> None:
    # The limit may have been lowered since.
    scene = orphans(AGAIN.model_copy(update={"crashes": 3}))
    assert type(scene.failed().error) is PoisonedJobError


def test_a_job_that_waited_when_its_worker_died_is_not_put_aside() -> None:
    scene = orphaned(AGAIN, crashes=2)
    scene.server.state, scene.server.running = PromptState.QUEUED, False
    assert scene.run() == RESULT


def test_the_last_server_that_dies_of_a_job_puts_it_aside() -> None:
    scene = again(AGAIN.model_copy(update={"crashes": 2}))
    scene.executor.end = AttemptFailed(ComfyUIUnavailableError("it died"), executing=True)
    assert type(scene.failed().error) is PoisonedJobError
    (_, _, letter) = scene.ledger.last("end")
    assert letter.error == "ComfyUIUnavailableError: it died"


def test_a_poisoned_job_that_is_committed_after_all_succeeds() -> None:
    scene = orphaned(crashes=2)
    scene.executor.manifest = RESULT
    assert scene.run() == RESULT


def test_a_crash_less_is_tried() -> None:
    assert orphaned(crashes=1).run() == RESULT


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


# Revoked between two attempts


@pytest.mark.parametrize(
    ("record", "here", "there", "ordered"),
    [
        pytest.param(AGAIN, 1, 0, 0, id="here"),
        pytest.param(AGAIN.model_copy(update={"spent": True}), 0, 0, 0, id="spent"),
        pytest.param(
            AGAIN.model_copy(update={"place": NEIGHBOUR, "instance": NEIGHBOUR}),
            0,
            1,
            0,
            id="there",
        ),
        pytest.param(AGAIN.model_copy(update={"place": AFAR}), 0, 0, 1, id="afar"),
    ],
)
def test_a_job_that_is_revoked_between_attempts_leaves_nothing_behind(
    record: Record, here: int, there: int, ordered: int
) -> None:
    scene = Scene(Cancelled(TOKEN, record))
    with pytest.raises(JobCancelledError):
        scene.run()
    prompt = prompt_id("job", 1)
    assert scene.server.cancelled == [prompt] * here
    assert scene.neighbour.cancelled == [prompt] * there
    # Its end comes last: until then whoever gets its message does this again.
    orders = [("stop", AFAR, prompt)] * ordered
    assert scene.ledger.written == [*orders, ("end", "cancelled", "")]
    (job,) = scene.removed
    assert (job.id, job.folder) == ("job", "first")


def test_a_prompt_that_cannot_be_stopped_now_is_ordered_to_stop() -> None:
    scene = Scene(Cancelled(TOKEN, AGAIN))
    scene.server.try_cancel = lambda _: False  # type: ignore[method-assign]
    with pytest.raises(JobCancelledError):
        scene.run()
    assert scene.ledger.last("stop") == (HERE, prompt_id("job", 1))


# A fault of ours


def test_a_fault_of_ours_fails_the_job_with_a_sentence_of_ours_and_frees_the_gpu() -> None:
    scene = again()
    scene.executor.end = KeyError("secret")
    failed = scene.failed()
    assert type(failed.error) is InternalError
    assert failed.error.message == (
        "comfyfleet itself failed with KeyError; the worker's log says where"
    )
    assert [one.number for one in failed.attempts] == [1, 2]
    assert scene.server.cancelled == [prompt_id("job", 2)]
    assert scene.ledger.last("end")[0] == "failed"
    assert AttemptEnded("job", 2, failed.error) in scene.events


# Handing on


def test_a_job_is_left_to_who_has_its_server_now_with_what_runs_there() -> None:
    scene = new()
    scene.executor.end = ServerLost("another worker drives its server now")
    scene.postponed()
    (record, pause) = scene.ledger.last("release")
    assert (pause, record.failures, record.crashes, record.spent) == (0.0, 0, 0, False)
    assert record.route.prefer == record.place == HERE
    assert record.attempts[-1].error == "ServerLost: another worker drives its server now"
    assert scene.server.cancelled == []


@pytest.mark.parametrize(
    ("kept", "stopped"),
    [
        pytest.param(RECORD.model_copy(update={"prompt": 2}), True, id="others run their own"),
        pytest.param(RECORD, False, id="others have adopted it"),
    ],
)
def test_who_has_lost_its_server_and_the_job_leaves_no_prompt_that_nobody_waits_for(
    kept: Record, stopped: bool
) -> None:
    scene = new()
    scene.executor.end = ServerLost("x")
    scene.ledger.ours = False
    scene.ledger.kept = kept
    scene.postponed()
    assert scene.server.cancelled == ([prompt_id("job", 1)] if stopped else [])


def test_a_worker_that_leaves_gives_the_job_back_for_now() -> None:
    scene = new()
    scene.executor.end = WorkerLeaving("its worker was asked to end")
    scene.executor.stops_prompt = True
    later = scene.postponed()
    assert (later.seconds, later.error) == (0.0, None)
    (record, pause) = scene.ledger.last("release")
    assert (pause, record.failures, record.crashes, record.route) == (0.0, 0, 0, Route())
    assert record.attempts[-1].error == "WorkerLeaving: its worker was asked to end"
    # Its prompt was stopped.
    assert record.spent


@pytest.mark.parametrize("stopped", [True, False], ids=["queued", "not-queued"])
@pytest.mark.parametrize(
    "record",
    [AGAIN, AGAIN.model_copy(update={"failures": 2, "crashes": 1})],
    ids=["first", "tried before"],
)
def test_a_job_that_was_spared_this_server_was_not_tried_here(
    record: Record, stopped: bool
) -> None:
    scene = again(record)
    scene.executor.end = Spared("a server elsewhere has nothing to do")
    scene.executor.stops_prompt = stopped
    later = scene.postponed()
    # To the head of the queue.
    assert (later.seconds, later.error) == (0.0, None)
    (kept, pause) = scene.ledger.last("release")
    assert (kept.attempts, kept.failures, kept.crashes) == (
        record.attempts,
        record.failures,
        record.crashes,
    )
    assert (kept.route, pause) == (Route(), 0.0)
    # A prompt that was taken out of the server's queue is none to go on with.
    assert kept.spent == stopped
    assert scene.server.cancelled == []


def test_a_job_that_was_spared_before_anybody_tried_it_has_no_attempts() -> None:
    scene = new()
    scene.executor.end = Spared("x")
    scene.executor.stops_prompt = True
    scene.postponed()
    (kept, _) = scene.ledger.last("release")
    assert (kept.attempts, kept.spent) == ((), True)
    # Whoever has it next makes a prompt of its own.
    scene = again(kept)
    assert scene.run() == RESULT
    assert (scene.job.number, scene.job.start) == (1, Start.SUBMIT)
    assert (scene.server.asked, scene.ledger.steps) == ([], ["save", "end"])


def test_a_collected_prompt_is_there_for_the_next_one() -> None:
    scene = orphaned(place=NEIGHBOUR, instance=NEIGHBOUR)
    scene.neighbour.state = PromptState.ENDED
    scene.executor.end = WorkerLeaving("x")
    scene.postponed()
    assert not scene.ledger.last("release")[0].spent


@pytest.mark.parametrize("spent", [False, True])
def test_a_worker_that_leaves_before_the_attempt_leaves_the_prompt_as_it_was(spent: bool) -> None:
    scene = again(AGAIN.model_copy(update={"spent": spent}))
    scene.executor.manifest = WorkerLeaving("while the store was away")
    scene.postponed()
    assert scene.executor.jobs == []
    assert scene.ledger.last("release")[0].spent == spent


def test_a_job_that_cannot_be_given_back_is_left_to_its_lease() -> None:
    scene = new()
    scene.executor.end = WorkerLeaving("x")
    scene.ledger.release = _refusing  # type: ignore[method-assign]
    assert scene.postponed().seconds == 0.0


def _refusing(*_: Any) -> bool:
    raise BrokerUnavailableError("away")


class Listening(Notifications):
    """A websocket that is not there, so that the history is asked at once."""

    def __init__(self) -> None:
        super().__init__(HERE, "mine")


class Store:
    """A store that fails while the worker is told to leave, or takes everything meanwhile."""

    bucket = "b"

    def __init__(self, keeper: Keeper, *, fails: bool) -> None:
        self._keeper = keeper
        self._fails = fails

    def get(self, _: str) -> None:
        return None

    def put(self, key: str, _: object) -> StoredObject:
        self._keeper.lease.control.stop(WorkerLeaving("its worker was asked to end"))
        if self._fails:
            raise StorageUnavailableError("away")
        return StoredObject("b", key, "image/png", 1, "abc")


@pytest.mark.parametrize("fails", [True, False], ids=["store-away", "all-uploaded"])
def test_a_worker_that_leaves_while_it_uploads_leaves_what_is_rendered(
    monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    monkeypatch.setattr(waiting, "POLL_DEAF", 0.0)
    scene = new()
    store = Store(scene.keeper, fails=fails)
    manifests = Manifests(store, None, scene.keeper, takes_conditions=lambda: True)
    with ThreadPoolExecutor(1) as uploaders:
        diagnosis = Diagnosis(None, None, None)
        scene.executor = Executor(
            staging=Staging(
                inputs=SimpleNamespace(place=lambda workflow, *_: workflow),
                refuse_parts=lambda *_: None,
                object_info=dict,
                workflow_max_bytes=10**6,
            ),
            prompts=Prompts(
                comfyui=scene.server,
                notifications=Listening(),
                listen_as=None,
                server_at=None,
                breaker=SimpleNamespace(suspect=None, accept=lambda: None),
                keeper=scene.keeper,
                stopping=Stopping(scene.server, scene.keeper, None),
                diagnosis=diagnosis,
                stall_seconds=60.0,
            ),
            storing=Storing(
                store=store,
                uploaders=uploaders,
                removal=SimpleNamespace(remove_files=lambda *_, **__: None),
                manifests=manifests,
                keeper=scene.keeper,
                s3_patience_seconds=60.0,
            ),
            diagnosis=diagnosis,
            keeper=scene.keeper,
            store=store,
            manifests=manifests,
            removal=None,
            worker="w",
            prefix="",
            s3_patience_seconds=60.0,
        )
        scene.postponed()
    (record, _) = scene.ledger.last("release")
    assert record.attempts[-1].error.startswith("WorkerLeaving: ")
    assert scene.server.cancelled == []
    # The next one collects it: the GPU has been paid for.
    assert not record.spent


OTHERS = RECORD.model_copy(update={"place": NEIGHBOUR, "prompt": 2})


@pytest.mark.parametrize(
    ("kept", "stopped"),
    [
        pytest.param(OTHERS, True, id="others run their own"),
        pytest.param(None, True, id="the job has ended"),
        pytest.param(RECORD, False, id="others have adopted it"),
    ],
)
def test_who_has_lost_a_job_stops_its_prompt_unless_others_go_on_with_it(
    kept: Record | None, stopped: bool
) -> None:
    scene = new()
    scene.executor.end = LeaseLost("somebody else has the job")
    scene.ledger.kept = kept
    later = scene.postponed()
    assert later.error is None
    assert scene.server.cancelled == ([prompt_id("job", 1)] if stopped else [])
    # It is not ours to write.
    assert scene.ledger.written == []


def test_who_has_lost_a_job_and_cannot_ask_stops_nothing() -> None:
    scene = new()
    scene.executor.end = LeaseLost("x")

    def away(_: str) -> None:
        raise BrokerUnavailableError("away")

    scene.ledger.record = away  # type: ignore[method-assign]
    scene.postponed()
    assert scene.server.cancelled == []


@pytest.mark.parametrize("reason", [LeaseLost("x"), WorkerLeaving("x"), Spared("x")], ids=repr)
def test_what_is_handed_on_never_ends_here(reason: HandedOn) -> None:
    scene = orphaned()
    scene.executor.end = reason
    scene.postponed()
    assert "end" not in scene.ledger.steps


NEW = Claimed(TOKEN, now=NOW, is_new=True, owner_died=False, record=RECORD)


def test_what_is_not_allowed_fails_though_another_server_would_take_it() -> None:
    scene = Scene(NEW)
    scene.executor.end = AttemptFailed(NodeForbiddenError("node 1 (A): not allowed"), waited=True)
    scene.router.after = Lane.of("", ["x"])
    assert isinstance(scene.failed().error, NodeForbiddenError)
    assert scene.ledger.steps == ["end"]


# Webhooks


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
