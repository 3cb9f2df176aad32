"""From what servers executed and loaded to the numbers that are told."""

from collections import Counter
from collections.abc import Iterable, Sequence

from bench.model import BenchError, Execution
from bench.warm.model import Order, RareRun, Warm, WarmRun


def loads(executions: Iterable[Execution]) -> Counter[tuple[str, str]]:
    """How often each server loaded each model."""
    return Counter((one.server, model) for one in executions for model in one.loads)


def idle_share(executions: Sequence[Execution], servers: int, sent: float) -> float:
    """The share of all servers' time, while a job waited, in which they executed none.

    Args:
        executions: of all jobs.
        servers: how many could have executed.
        sent: when the jobs were sent.
    """
    end = max(one.started for one in executions)
    busy = sum(max(0.0, min(one.ended, end) - max(one.started, sent)) for one in executions)
    return 1.0 - busy / (servers * (end - sent))


def makespan_shares(runs: Sequence[WarmRun]) -> list[float]:
    """Warm first's makespan of that of plain FIFO, for each repetition."""
    times = {(one.warm, one.order, one.repetition): one.makespan for one in runs}
    return [
        seconds / times[warm, Order.FIFO, repetition]
        for (warm, order, repetition), seconds in times.items()
        if order is Order.WARM
    ]


def rare_run(warm: Warm, executions: Iterable[Execution], model: str, sent: float) -> RareRun:
    """What became of the one job that loads a model.

    Args:
        warm: what was done; it tells the job's place in the queue.
        executions: of all jobs.
        model: that the job loads.
        sent: when the jobs were sent.

    Raises:
        BenchError: no job, or more than one, loaded the model.
    """
    known = sorted(executions, key=lambda one: one.started)
    places = [place for place, one in enumerate(known) if model in one.loads]
    if len(places) != 1:
        raise BenchError(f"{len(places)} executions loaded {model}, not one")
    (place,) = places
    began = known[place].started
    return RareRun(
        warm,
        wait=began - sent,
        late=max(0.0, began - known[warm.ahead].started),
        overtakers=place - warm.ahead,
        crowd=known[-1].started - sent,
    )
