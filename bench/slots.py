"""How many slots a worker needs: short jobs and a distant store, with more and more slots."""

from collections.abc import Iterator, Sequence

from bench.cells import run_once
from bench.contenders import Contender, Limit, Queued
from bench.model import QUEUE, TASK, Kind, SlotsRun, SlotsTried
from bench.rig import Rig, Tell


def run_slots(rig: Rig, tried: Sequence[SlotsTried], tell: Tell) -> Iterator[SlotsRun]:
    """The same jobs with each number of slots, beside the limit."""
    for one in tried:
        servers = rig.servers(1)
        settings = {"WORKER_SLOTS": str(one.slots)}
        with rig.workers(servers, settings), rig.producer() as app:
            ours: Contender = Queued(app, TASK, QUEUE)
            ready = {Kind.LIMIT: Limit(servers), Kind.OURS: ours}
            # Connections are opened and code is loaded before the clock runs.
            ours.run(rig.graphs.batch_of(one.slots, 0.1))
            runs = [
                run_once(rig, one.cell, kind, ready, repetition)
                for repetition in range(one.cell.repeat)
                for kind in one.cell.kinds
            ]
        spans = ", ".join(f"{run.kind} {run.span:.3f} s" for run in runs)
        tell(f"{one.slots} slots, {one.cell.jobs} x {one.cell.seconds} s: span {spans}")
        yield SlotsRun(one, tuple(runs))
