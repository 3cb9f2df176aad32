"""What is done with models that take time to load, and what came out: values."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

WAIT_SETTING = "WARM_WAIT_SECONDS"
# A twentieth of what workers do by default, as all other times here are of what servers take.
WAIT_SECONDS = 1.5


class Order(StrEnum):
    """By what a worker chooses its next job."""

    FIFO = "fifo"
    WARM = "warm"

    @property
    def label(self) -> str:
        """For tables."""
        return {Order.FIFO: "plain FIFO", Order.WARM: "comfyfleet, warm first"}[self]

    @property
    def settings(self) -> Mapping[str, str]:
        """The variables of a worker that does so."""
        return {WAIT_SETTING: "0" if self is Order.FIFO else str(WAIT_SECONDS)}


@dataclass(frozen=True)
class Warm:
    """As many jobs of each model, shuffled, on servers that have all models and loaded none.

    Attributes:
        servers: how many.
        models: how many.
        jobs: of each model.
        job_seconds: that a job executes.
        load_seconds: that loading a model takes.
        crowd: jobs of these models, beside which one of a rare model is sent.
        ahead: of the crowd's jobs, those sent before the rare one.
        repeat: how often; the crowd comes once.
    """

    servers: int
    models: int
    jobs: int
    job_seconds: float
    load_seconds: float
    crowd: int
    ahead: int
    repeat: int

    @property
    def least_seconds(self) -> float:
        """No order takes less: each model loaded once, the work shared evenly, no server idle."""
        work = self.models * (self.load_seconds + self.jobs * self.job_seconds)
        return work / self.servers


@dataclass(frozen=True)
class WarmRun:
    """What one order made of the shuffled jobs once.

    Attributes:
        warm: what was done.
        order: how.
        repetition: the how-manieth time.
        loads: of models, on all servers.
        pairs: of a model and a server that loaded it.
        makespan: seconds from the first job's sending to the last result.
        idle: the share of the servers' time in which they did nothing while jobs waited.
    """

    warm: Warm
    order: Order
    repetition: int
    loads: int
    pairs: int
    makespan: float
    idle: float


@dataclass(frozen=True)
class RareRun:
    """What became of one job of a rare model in a crowd of jobs that need no load.

    Attributes:
        warm: what was done.
        wait: seconds from its sending until it began.
        late: seconds from its turn, had each job begun in its place in the queue, until it began.
        overtakers: jobs that were sent after it and began before it, less those that it overtook.
        crowd: seconds from the sending until the last job began.
    """

    warm: Warm
    wait: float
    late: float
    overtakers: int
    crowd: float
