"""What a soak does and when, as a function of its seed."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """The kinds of faults, by the names that `--faults` takes."""

    KILL_WORKER = "kill-worker"
    TERM_WORKER = "term-worker"
    KILL_COMFYUI = "kill-comfyui"
    HANG_COMFYUI = "hang-comfyui"
    CUT_COMFYUI = "cut-comfyui"
    RESTART_VALKEY = "restart-valkey"
    KILL_VALKEY = "kill-valkey"
    REFUSE_S3 = "refuse-s3"
    CANCEL = "cancel"
    DUPLICATE = "duplicate"
    POISON = "poison"


# How long each lasts, in seconds: the least and the most.
_DURATIONS: dict[Kind, tuple[float, float]] = {
    # Until the supervisor starts it again.
    Kind.KILL_WORKER: (1.0, 3.0),
    Kind.TERM_WORKER: (1.0, 3.0),
    Kind.KILL_COMFYUI: (2.0, 5.0),
    Kind.HANG_COMFYUI: (2.0, 8.0),
    # Until it is back, or listens again.
    Kind.RESTART_VALKEY: (0.2, 3.0),
    Kind.KILL_VALKEY: (0.2, 3.0),
    Kind.REFUSE_S3: (2.0, 8.0),
}

# A job that is cancelled or sent again is one of so many that have waited longest.
_OLDEST = 16


@dataclass(frozen=True)
class PlannedJob:
    """A job to send; no two have the same seed, so that none is answered from a cache.

    Attributes:
        id: Celery's task id.
        at: seconds after the start at which it is sent.
        seconds: that it executes.
        seed: of its picture.
    """

    id: str
    at: float
    seconds: float
    seed: int


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        kind: what.
        at: seconds after the start.
        target: which worker, ComfyUI or poison job; of jobs, the how-manieth of the oldest.
        seconds: how long it lasts.
    """

    kind: Kind
    at: float
    target: int
    seconds: float = 0.0


@dataclass(frozen=True)
class Schedule:
    """Jobs and faults, each in the order of their times."""

    jobs: tuple[PlannedJob, ...]
    faults: tuple[Fault, ...]


def plan(
    seed: int,
    *,
    jobs: int,
    workers: int,
    kinds: Sequence[Kind] = tuple(Kind),
    job_seconds: tuple[float, float] = (0.2, 3.0),
    fault_every: float = 4.0,
    span: float | None = None,
) -> Schedule:
    """Plan a soak; the same arguments give the same plan.

    Args:
        seed: of all that is random.
        jobs: how many, poison not counted.
        workers: how many, and as many ComfyUI servers.
        kinds: of faults; each comes as often as any other.
        job_seconds: least and most that a job executes.
        fault_every: seconds between two faults, on average.
        span: seconds over which jobs are sent; default: as long as a fleet without faults needs.
    """
    rng = random.Random(seed)
    durations = [rng.uniform(*job_seconds) for _ in range(jobs)]
    span = sum(durations) / workers if span is None else span
    planned = tuple(
        PlannedJob(f"s{seed}-{number:04}", span * number / jobs, round(seconds, 3), number + 1)
        for number, seconds in enumerate(durations)
    )
    return Schedule(planned, tuple(_faults(rng, kinds, workers, fault_every, span)))


def _faults(
    rng: random.Random, kinds: Sequence[Kind], workers: int, every: float, span: float
) -> list[Fault]:
    found: list[Fault] = []
    bag: list[Kind] = []
    poisons = 0
    at = rng.uniform(0.5, 1.0) * every
    while at < span and kinds:
        # From a bag that is emptied before it is filled again: no kind is left to luck.
        bag = bag or rng.sample(kinds, len(kinds))
        kind = bag.pop()
        if kind is Kind.POISON:
            target, poisons = poisons, poisons + 1
        else:
            target = rng.randrange(_OLDEST if kind in (Kind.CANCEL, Kind.DUPLICATE) else workers)
        seconds = rng.uniform(*_DURATIONS.get(kind, (0.0, 0.0)))
        found.append(Fault(kind, round(at, 3), target, round(seconds, 3)))
        at += rng.uniform(0.5, 1.5) * every
    return found
