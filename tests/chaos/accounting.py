"""What became of every job of a soak, from the traces that it left."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

MOST_WASTE = 0.05
MOST_PICK_UP_SECONDS = 30.0

# A job that had been committed when it was cancelled stays so; clocks and listings are coarse.
_CANCEL_SECONDS = 2.0


@dataclass(frozen=True)
class Ending:
    """A terminal state that the result backend showed.

    Attributes:
        state: SUCCESS, FAILURE or REVOKED.
        result: the job's result, or what Celery keeps of an error.
        seen_at: when it was seen first, Unix time in seconds.
    """

    state: str
    result: Any
    seen_at: float


@dataclass(frozen=True)
class Run:
    """One execution of a prompt on a server; Unix times, no end if the server died in it."""

    server: int
    prompt_id: str
    began: float
    ended: float | None


@dataclass(frozen=True)
class Span:
    """A server was dead, or hung, from a Unix time to another."""

    server: int
    since: float
    until: float


@dataclass(frozen=True)
class Stored:
    """An object as it lies in the store."""

    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """A manifest as it lies in the store; its content is None where it cannot be read."""

    key: str
    job_id: str
    committed_at: float
    content: Mapping[str, Any] | None


@dataclass(frozen=True)
class Departure:
    """A server's worker was killed, died or was told to leave.

    Attributes:
        server: whose worker.
        at: when, Unix time in seconds.
        gone: when its process had ended.
    """

    server: int
    at: float
    gone: float


@dataclass(frozen=True)
class Sign:
    """A job's progress changed: a worker is at it.

    Attributes:
        job_id: of the job.
        server: which the progress names.
        since: when the result backend was last seen without it, Unix time in seconds.
        at: when it was seen.
    """

    job_id: str
    server: int
    since: float
    at: float


@dataclass(frozen=True)
class Evidence:
    """All traces of a soak.

    Attributes:
        accepted: ids of the jobs whose sending succeeded.
        endings: per job, each different one that was seen, in order.
        manifests: all that the bucket has.
        objects: all that the bucket has, by key.
        runs: all executions of all servers.
        prompts: prompt id to job id.
        deaths: of ComfyUI servers, each until its next start.
        pauses: of ComfyUI servers.
        departures: of worker processes.
        broker_ends: when the broker was stopped or killed, Unix times in seconds.
        signs: of work on jobs, in the order in which they were seen.
        cancelled: job id to the Unix time at which it was cancelled.
        poison: jobs that kill their ComfyUI.
        dead_letters: ids of the jobs there.
        faults: how many of each kind.
        crashes: how many worker processes ended though nobody had told them to.
    """

    accepted: AbstractSet[str]
    endings: Mapping[str, Sequence[Ending]]
    manifests: Sequence[Manifest]
    objects: Mapping[str, Stored]
    runs: Sequence[Run]
    prompts: Mapping[str, str]
    deaths: Sequence[Span] = ()
    pauses: Sequence[Span] = ()
    departures: Sequence[Departure] = ()
    broker_ends: Sequence[float] = ()
    signs: Sequence[Sign] = ()
    cancelled: Mapping[str, float] = field(default_factory=dict)
    poison: AbstractSet[str] = frozenset()
    dead_letters: AbstractSet[str] = frozenset()
    faults: Mapping[str, int] = field(default_factory=dict)
    crashes: int = 0


@dataclass(frozen=True)
class PickUp:
    """How long a job waited after its worker had gone.

    Measured from the signal, or from the death of a worker that ended by itself, to the first sign
    that somebody else, or the worker's successor, has the job: a change of its progress after the
    process had ended, an execution on another server, or the job's end. Signs are seen when the
    result backend is looked at, so that it is too long by a look at most. Only jobs count whose
    latest progress named the worker's server, and that had not ended.

    Attributes:
        job_id: of the job.
        seconds: that it waited.
        broker_ended: whether the broker was stopped or killed, too, while it waited.
    """

    job_id: str
    seconds: float
    broker_ended: bool = False


@dataclass(frozen=True)
class Report:
    """The account.

    Attributes:
        jobs: accepted ones, poison included.
        states: how many ended how.
        faults: how many of each kind.
        lost: accepted jobs without an end, or without what a success promises: id to what is amiss.
        twice: jobs that were committed, or ended, more than once.
        wrong: jobs that ended otherwise than they should have.
        executions: begun on all servers.
        gpu_seconds: that the servers executed; a hung server's time is none.
        extra_seconds: of these, spent on executions beyond one a job that no dead server explains.
        destroyed_seconds: of these, gone with a ComfyUI that died.
        pick_ups: of jobs whose worker had gone, the longest first.
        orphans: objects that no manifest names.
        crashes: workers that ended though nobody had told them to.
    """

    jobs: int
    states: Mapping[str, int]
    faults: Mapping[str, int]
    lost: Mapping[str, str]
    twice: Mapping[str, str]
    wrong: Mapping[str, str]
    executions: int
    gpu_seconds: float
    extra_seconds: float
    destroyed_seconds: float
    pick_ups: Sequence[PickUp]
    orphans: Sequence[str]
    crashes: int

    @property
    def waste(self) -> float:
        """The share of GPU seconds that nobody needed."""
        return self.extra_seconds / self.gpu_seconds if self.gpu_seconds else 0.0

    @property
    def worst_pick_up(self) -> float:
        """In seconds."""
        return max((one.seconds for one in self.pick_ups), default=0.0)

    @property
    def worst_pick_up_with_broker(self) -> float:
        """In seconds, of the jobs whose worker alone had gone."""
        return max((one.seconds for one in self.pick_ups if not one.broker_ended), default=0.0)

    @property
    def is_good(self) -> bool:
        """Whether every job ended once and as it should, and little was wasted."""
        return (
            not self.lost
            and not self.twice
            and not self.wrong
            and not self.crashes
            and self.waste <= MOST_WASTE
            and self.worst_pick_up <= MOST_PICK_UP_SECONDS
        )


def account(evidence: Evidence) -> Report:
    """Account for every job."""
    states = Counter(
        endings[-1].state if (endings := evidence.endings.get(job_id)) else "none"
        for job_id in evidence.accepted
    )
    extra, destroyed = _squandered(evidence)
    return Report(
        jobs=len(evidence.accepted),
        states=dict(sorted(states.items())),
        faults=dict(evidence.faults),
        lost=_each(evidence, _loss),
        twice=_each(evidence, _repetition),
        wrong=_each(evidence, _mistake),
        executions=len(evidence.runs),
        gpu_seconds=round(sum(seconds(run, evidence) for run in evidence.runs), 3),
        extra_seconds=round(extra, 3),
        destroyed_seconds=round(destroyed, 3),
        pick_ups=sorted(_pick_ups(evidence), key=lambda one: -one.seconds),
        orphans=sorted(evidence.objects.keys() - _named(evidence)),
        crashes=evidence.crashes,
    )


def seconds(run: Run, evidence: Evidence) -> float:
    """How long a run had the GPU: until it ended or its server died, less the server's pauses."""
    deaths = [death.since for death in evidence.deaths if death.server == run.server]
    ended = run.ended or min((at for at in deaths if at >= run.began), default=run.began)
    paused = sum(
        max(0.0, min(ended, pause.until) - max(run.began, pause.since))
        for pause in evidence.pauses
        if pause.server == run.server
    )
    return max(0.0, ended - run.began - paused)


def _each(evidence: Evidence, fault: Any) -> dict[str, str]:
    found = {job_id: fault(evidence, job_id) for job_id in sorted(evidence.accepted)}
    return {job_id: text for job_id, text in found.items() if text}


def _manifests(evidence: Evidence, job_id: str) -> list[Manifest]:
    return [one for one in evidence.manifests if one.job_id == job_id]


def _loss(evidence: Evidence, job_id: str) -> str | None:
    endings = evidence.endings.get(job_id)
    if not endings:
        return "has not ended"
    if endings[-1].state != "SUCCESS":
        return None
    manifests = _manifests(evidence, job_id)
    if not manifests or manifests[0].content is None:
        return "succeeded, and has no readable manifest"
    outputs = manifests[0].content["outputs"]
    amiss = [
        output["key"]
        for output in outputs
        if evidence.objects.get(output["key"]) != Stored(output["size_bytes"], output["sha256"])
    ]
    if amiss or not outputs:
        return f"succeeded, and outputs are missing or spoilt: {', '.join(amiss) or 'all'}"
    return None


def _repetition(evidence: Evidence, job_id: str) -> str | None:
    manifests = _manifests(evidence, job_id)
    if len(manifests) > 1:
        return f"has {len(manifests)} manifests"
    endings = evidence.endings.get(job_id, ())
    if len(endings) > 1:
        return "ended as " + ", then as ".join(ending.state for ending in endings)
    if not endings or not manifests or manifests[0].content is None:
        return None
    if endings[0].state == "SUCCESS" and _essence(endings[0].result) != _essence(
        manifests[0].content
    ):
        return "its result and its manifest differ"
    return None


def _essence(result: Mapping[str, Any]) -> list[Any]:
    files = [(output["key"], output["sha256"]) for output in result["outputs"]]
    return [result["prompt_id"], result["instance"], sorted(files)]


def _mistake(evidence: Evidence, job_id: str) -> str | None:
    endings = evidence.endings.get(job_id)
    if not endings:
        return None
    ending = endings[-1]
    told = f"ended as {ending.state} {_error(ending)}".strip()
    manifests = _manifests(evidence, job_id)
    if ending.state != "SUCCESS" and manifests:
        return f"has a manifest, and {told}"
    if job_id in evidence.poison:
        buried = _error(ending).startswith("PoisonedJobError") and job_id in evidence.dead_letters
        cancelled = ending.state == "REVOKED" and job_id in evidence.cancelled
        return None if buried or cancelled else f"is poison, is not dead, {told}"
    if job_id in evidence.dead_letters:
        return f"is no poison, lies in the dead letters, {told}"
    cancelled_at = evidence.cancelled.get(job_id)
    if cancelled_at is None or ending.state == "FAILURE":
        return None if ending.state == "SUCCESS" else told
    late = any(manifest.committed_at > cancelled_at + _CANCEL_SECONDS for manifest in manifests)
    return "was committed after it had been cancelled" if late else None


def _error(ending: Ending) -> str:
    if ending.state != "FAILURE":
        return ""
    message = " ".join(map(str, ending.result.get("exc_message", ())))
    return f"{ending.result.get('exc_type')}: {message}"


def _squandered(evidence: Evidence) -> tuple[float, float]:
    """Seconds of executions beyond one a job, and those that were gone with their server."""
    of_job: dict[str, list[Run]] = defaultdict(list)
    for run in sorted(evidence.runs, key=lambda run: run.began):
        # A prompt of nobody's is nobody's need.
        of_job[evidence.prompts.get(run.prompt_id, f"unknown {run.prompt_id}")].append(run)
    extra = destroyed = 0.0
    for job_id, runs in of_job.items():
        needed = _needed(evidence, job_id, runs)
        for run, following in zip(runs, [*runs[1:], None], strict=True):
            # The history is forgotten with the server: what comes after it has to be run again.
            until = following.began if following else float("inf")
            if run.ended is None or (run is not needed and _died(evidence, run, until)):
                destroyed += seconds(run, evidence)
            elif run is not needed:
                extra += seconds(run, evidence)
    return extra, destroyed


def _needed(evidence: Evidence, job_id: str, runs: Sequence[Run]) -> Run | None:
    """The run that a job could not do without: its result's, else the longest."""
    if job_id not in evidence.accepted:
        return None
    endings = evidence.endings.get(job_id)
    result = endings[-1].result if endings and endings[-1].state == "SUCCESS" else {}
    whole = [run for run in runs if run.ended is not None]
    named = [run for run in whole if run.prompt_id == result.get("prompt_id")]
    return max(named or whole, key=lambda run: seconds(run, evidence), default=None)


def _died(evidence: Evidence, run: Run, until: float) -> bool:
    return any(
        death.server == run.server and run.began <= death.since < until for death in evidence.deaths
    )


def _pick_ups(evidence: Evidence) -> list[PickUp]:
    signs: dict[str, list[Sign]] = defaultdict(list)
    for sign in evidence.signs:
        signs[sign.job_id].append(sign)
    runs: dict[str, list[Run]] = defaultdict(list)
    for run in evidence.runs:
        runs[evidence.prompts.get(run.prompt_id, "")].append(run)
    found = []
    for departure in evidence.departures:
        for job_id, seen in signs.items():
            ended = [ending.seen_at for ending in evidence.endings.get(job_id, ())[:1]]
            before = [sign for sign in seen if sign.since < departure.at]
            if not before or before[-1].server != departure.server:
                continue
            if (ended and ended[0] <= departure.at) or _left_between(
                evidence, departure.server, before[-1].at, departure.at
            ):
                continue
            told = [sign.at for sign in seen if sign.since >= departure.gone]
            # On its own server what it had queued goes on without it.
            begun = [run.began for run in runs[job_id] if run.server != departure.server]
            after = [at for at in (*told, *begun, *ended) if at > departure.at]
            if after:
                waited = min(after) - departure.at
                ended_too = any(departure.at <= at <= min(after) for at in evidence.broker_ends)
                found.append(PickUp(job_id, round(waited, 3), ended_too))
    return found


def _left_between(evidence: Evidence, server: int, since: float, until: float) -> bool:
    """Whether the server's worker had gone already, so that its successor never had the job."""
    return any(
        other.server == server and since <= other.at < until for other in evidence.departures
    )


def _named(evidence: Evidence) -> set[str]:
    """The keys of all manifests and of what they name."""
    keys = {manifest.key for manifest in evidence.manifests}
    for manifest in evidence.manifests:
        keys.update(output["key"] for output in (manifest.content or {}).get("outputs", ()))
    return keys
