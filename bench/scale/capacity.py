"""How many workers one broker carries: arithmetic on measured costs."""

from dataclasses import dataclass

from bench.scale.model import Costs, Memory, Throughput

# Of its one core; the rest is for peaks, restarts and who comes to look.
BROKER_SHARE = 0.6


@dataclass(frozen=True)
class Carried:
    """A fleet that one broker carries.

    Attributes:
        job_seconds: that a job executes.
        workers: how many, all busy.
        jobs_a_second: that they do.
        kept_bytes: of results and ends that the broker holds when as many expire as come.
    """

    job_seconds: float
    workers: int
    jobs_a_second: float
    kept_bytes: float


def carried(job_seconds: float, costs: Costs, memory: Memory | None) -> Carried:
    """What one broker carries where each worker does a job each so many seconds.

    Its one thread is what is used up: what it needs for a job, and for a worker all the time.
    """
    a_worker = costs.broker_cpu_idle + costs.broker_cpu_a_job / job_seconds
    workers = int(BROKER_SHARE / a_worker)
    jobs_a_second = workers / job_seconds
    kept = memory.kept.values() if memory else ()
    return Carried(
        job_seconds=job_seconds,
        workers=workers,
        jobs_a_second=jobs_a_second,
        kept_bytes=jobs_a_second * sum(size * seconds for size, seconds in kept),
    )


def carried_like(fleet: Throughput) -> int:
    """How many workers one broker carries if each costs it what each of a measured fleet did.

    More than `carried` says: the more a broker has to do, the more it does at a time.
    """
    return int(BROKER_SHARE / (fleet.cores["broker"] / fleet.workers))
