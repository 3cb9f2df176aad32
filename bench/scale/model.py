"""What is measured of a fleet's size and costs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Throughput:
    """A fleet of some size at work.

    Attributes:
        workers: and as many servers.
        a_second: executions.
        of_linear: share of what so many servers can do.
        cores: CPU cores that each part kept busy.
        cpu_a_job: CPU seconds that each part needed a job.
    """

    workers: int
    a_second: float
    of_linear: float
    cores: Mapping[str, float]
    cpu_a_job: Mapping[str, float]


@dataclass(frozen=True)
class Start:
    """A worker that is started where jobs wait.

    Attributes:
        waiting: how many jobs wait.
        seconds: from the process's start to its first execution's.
        a_second: executions of the first hundred or so.
    """

    waiting: int
    seconds: float
    a_second: float


@dataclass(frozen=True)
class Backlog:
    """A long queue.

    Attributes:
        message_bytes: of one job in the broker.
        sent_a_second: jobs, by one producer that waits for no result.
        memory_a_job: bytes of the broker for each waiting job.
        short: a worker's start at a short queue, before and after that at the long one.
        long: its start at the long one.
    """

    message_bytes: int
    sent_a_second: float
    memory_a_job: float
    short: tuple[Start, Start]
    long: Start


@dataclass(frozen=True)
class Costs:
    """What a job and an idle worker cost.

    Attributes:
        jobs: by which it was measured.
        commands_a_job: that clients send the broker for a job, by name, producer's included.
        script_commands_a_job: that scripts run inside the broker for a job.
        idle_commands_a_second: that clients send for an idle worker, by name.
        broker_cpu_a_job: CPU seconds of the broker.
        broker_cpu_idle: cores of the broker that an idle worker keeps busy.
        worker_cpu_a_job: CPU seconds of the worker.
        worker_cpu_idle: cores that an idle worker keeps busy.
        worker_rss_idle: bytes.
        s3_requests_a_job: by method.
    """

    jobs: int
    commands_a_job: Mapping[str, float]
    script_commands_a_job: float
    idle_commands_a_second: Mapping[str, float]
    broker_cpu_a_job: float
    broker_cpu_idle: float
    worker_cpu_a_job: float
    worker_cpu_idle: float
    worker_rss_idle: int
    s3_requests_a_job: Mapping[str, float]


@dataclass(frozen=True)
class Memory:
    """A worker that does many jobs.

    Attributes:
        jobs: how many.
        rss: its bytes after so many jobs.
        worker_bytes_a_job: by which it grows: least squares over the second half.
        broker_bytes_a_job: that the broker keeps of a job that has ended.
        kept: bytes and seconds of each key that it keeps, by the key's family.
    """

    jobs: int
    rss: Mapping[int, int]
    worker_bytes_a_job: float
    broker_bytes_a_job: float
    kept: Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class ScaleReport:
    """All that was measured."""

    machine: Mapping[str, Any]
    throughput: tuple[Throughput, ...]
    backlog: Backlog | None
    costs: Costs | None
    memory: Memory | None
    seconds: float
