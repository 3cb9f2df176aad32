"""A worker whose ledger, servers and store are of paper, and a message that comes to it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, Self

import pytest

from tasks.errors import BrokerUnavailableError, InvalidWorkflowError
from tasks.request import JobRequest
from tasks.result import Attempt, JobResult, ObjectRef, Timings
from workers.comfyui.model import PromptQueue, PromptState
from workers.execution import (
    Attempts,
    Custody,
    Endings,
    Handover,
    Limits,
    NotNow,
    Order,
    Placement,
    Retries,
    Takeover,
)
from workers.execution.job import AttemptFailed, Job, prompt_id
from workers.execution.keeper import Lease
from workers.execution.place import Place
from workers.ledger import Claimed, Ended, Record, Route
from workers.ledger.dead_letters import DeadLetter
from workers.ledger.outbox import Notice
from workers.ledger.outcomes import JobFailed
from workers.routing.lanes import Here, Lane, Later
from workers.routing.router import Wanted
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


class Executions:
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
        self.executor: Any = Executions()
        self.keeper = Keeper()
        self.router = Router()
        self.server = Server()
        self.neighbour = Server()
        self.removed: list[Job] = []
        self.takes_jobs = True
        self.max_attempts = self.max_crashes = 3
        self.events: list[Any] = []
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
        takeover = Takeover(
            ledger=paper,
            comfyui=self.server,  # type: ignore[arg-type]
            server_at={HERE: self.server, NEIGHBOUR: self.neighbour}.__getitem__,  # type: ignore[arg-type]
            place=Place(HERE, "this-host"),
        )
        limits = Limits(self.max_attempts, self.max_crashes)
        placement = Placement(
            ledger=paper,
            router=self.router,  # type: ignore[arg-type]
            takeover=takeover,
            place=HERE,
            limits=limits,
        )
        endings = Endings(
            ledger=paper,
            takeover=takeover,
            removal=SimpleNamespace(remove=self.removed.append),  # type: ignore[arg-type]
            webhooks=webhooks,
            observe=self.events.append,
        )
        return Custody(
            ledger=paper,
            keeper=self.keeper,  # type: ignore[arg-type]
            executor=self.executor,
            takes_jobs=lambda: self.takes_jobs,
            placement=placement,
            attempts=Attempts(
                ledger=paper,
                takeover=takeover,
                place=Place(HERE, "this-host"),
                client_id="mine",
            ),
            retries=Retries(
                ledger=paper,
                placement=placement,
                takeover=takeover,
                comfyui=self.server,  # type: ignore[arg-type]
                limits=limits,
                endings=endings,
                observe=self.events.append,
            ),
            handover=Handover(ledger=paper, comfyui=self.server, place=HERE),  # type: ignore[arg-type]
            webhooks=webhooks,
            endings=endings,
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


REFUSED = AttemptFailed(InvalidWorkflowError("the server refuses it"))


def refused(after: Lane | Later | Exception | None = None) -> Scene:
    scene = new()
    scene.executor.end, scene.router.after = REFUSED, after
    return scene


def routed(**route: Any) -> Scene:
    until = NOW + 60.0
    scene = again(AGAIN.model_copy(update={"route": Route(**{"until": until, **route})}))
    scene.ledger.live = {HERE, NEIGHBOUR}
    return scene


def refusing(*_: Any) -> bool:
    raise BrokerUnavailableError("away")
