"""What is measured, and what came out: values without any behaviour of their own."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from bench.warm.model import RareRun, WarmRun

Workflow = dict[str, Any]

TASK = "comfyui.run_workflow"
QUEUE = "comfyui"

RENDER = "BarsRender"
"""A node that takes as long as it is told."""


class BenchError(Exception):
    """The benchmark cannot go on; the message says why."""


class Kind(StrEnum):
    """Who does the jobs."""

    LIMIT = "limit"
    SEQUENTIAL = "sequential"
    PLAIN_2 = "plain-2"
    PLAIN_6 = "plain-6"
    OURS = "ours"

    @property
    def label(self) -> str:
        """For tables and charts."""
        return _TITLES[self]


_TITLES = {
    Kind.LIMIT: "direct limit",
    Kind.SEQUENTIAL: "sequential client",
    Kind.PLAIN_2: "plain Celery task, 2 threads",
    Kind.PLAIN_6: "plain Celery task, 6 threads",
    Kind.OURS: "comfyfleet",
}


@dataclass(frozen=True)
class Cell:
    """Like jobs on one server, done by several contenders in turn.

    Attributes:
        seconds: that each job executes.
        batch: images a job.
        s3_ms: milliseconds that the store's distance adds to each request.
        jobs: how many.
        kinds: the contenders.
        repeat: how often.
    """

    seconds: float
    batch: int
    s3_ms: int
    jobs: int
    kinds: tuple[Kind, ...]
    repeat: int


@dataclass(frozen=True)
class Mix:
    """Long and short jobs in one queue: half as many long ones as servers, sent first.

    Attributes:
        servers: how many.
        long_seconds: that a long job executes.
        short_seconds: that a short one executes.
        shorts: short ones for each long one.
        s3_ms: milliseconds that the store's distance adds to each request.
        kinds: the contenders.
        repeat: how often.
    """

    servers: int
    long_seconds: float
    short_seconds: float
    shorts: int
    s3_ms: int
    kinds: tuple[Kind, ...]
    repeat: int


@dataclass(frozen=True)
class Single:
    """One job after the other, each on an idle worker of ours.

    Attributes:
        seconds: that it executes.
        s3_ms: milliseconds that the store's distance adds to each request.
        jobs: how many.
        timeline: whether the worker is to tell of each mark that a job passes.
    """

    seconds: float
    s3_ms: int
    jobs: int
    timeline: bool = False


@dataclass(frozen=True)
class Execution:
    """One execution as its server tells it; Unix times in seconds.

    A stand-in also tells the models, `FOLDER/NAME`, that it loaded for it.
    """

    server: str
    prompt_id: str
    started: float
    ended: float
    loads: tuple[str, ...] = ()


@dataclass(frozen=True)
class Result:
    """A job's result, and when (Unix time in seconds) whoever wanted it had it."""

    server: str
    prompt_id: str
    at: float


@dataclass(frozen=True)
class Run:
    """What one contender made of a cell once; times in seconds.

    Attributes:
        cell: what was done.
        kind: by whom.
        repetition: the how-manieth time.
        span: from the first execution's start to the last one's end.
        makespan: from the first job's sending to the last result.
        execution: that a job executed, the median.
        gap: between two executions on a server, the median.
        s3_requests: that reached the store, by method.
    """

    cell: Cell
    kind: Kind
    repetition: int
    span: float
    makespan: float
    execution: float
    gap: float
    s3_requests: Mapping[str, int]


@dataclass(frozen=True)
class MixRun:
    """What one contender made of a mix once: seconds until the last short job had its result."""

    mix: Mix
    kind: Kind
    repetition: int
    seconds: float


@dataclass(frozen=True)
class SingleJob:
    """One job on an idle worker.

    Attributes:
        execution: seconds that it executed.
        total: seconds from its sending to its result.
        s3_request: seconds that one request to the store took just before.
        marks: Unix times in seconds by mark.
    """

    execution: float
    total: float
    s3_request: float
    marks: Mapping[str, float]

    @property
    def overhead(self) -> float:
        """Seconds beyond its execution and two requests to the store."""
        return self.total - self.execution - 2 * self.s3_request


@dataclass(frozen=True)
class SingleRun:
    """What came out of a `Single`."""

    single: Single
    jobs: tuple[SingleJob, ...]


@dataclass(frozen=True)
class SlotsTried:
    """A cell for workers with so many slots."""

    slots: int
    cell: Cell


@dataclass(frozen=True)
class SlotsRun:
    """What came out of a `SlotsTried`."""

    tried: SlotsTried
    runs: tuple[Run, ...]


@dataclass(frozen=True)
class Report:
    """All that was measured.

    Attributes:
        machine: what it was measured on.
        runs: of the cells.
        mixes: of the mixes.
        singles: of the single jobs.
        slots: of the numbers of slots.
        warm: of the models that take time to load.
        rare: of the rare model among these.
        notes: what must be said beside the numbers.
        seconds: that it took.
    """

    machine: Mapping[str, Any]
    runs: tuple[Run, ...]
    mixes: tuple[MixRun, ...]
    singles: tuple[SingleRun, ...]
    slots: tuple[SlotsRun, ...]
    warm: tuple[WarmRun, ...]
    rare: tuple[RareRun, ...]
    notes: tuple[str, ...]
    seconds: float

    @property
    def renders(self) -> bool:
        """Whether jobs could be told how long to execute."""
        return bool(self.machine["graph"] == RENDER)
