"""Like jobs on one server: each contender in turn, repetition by repetition."""

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import TypeVar

from bench.contenders import Contender, contender
from bench.figures import gaps, span
from bench.model import Cell, Kind, Run
from bench.rig import Rig, Tell

T = TypeVar("T")


def run_cells(rig: Rig, cells: Sequence[Cell], tell: Tell) -> Iterator[Run]:
    """Do all cells once before any is done again: what changes slowly changes for all."""
    kinds = [kind for kind in Kind if any(kind in cell.kinds for cell in cells)]
    with ExitStack() as undo:
        ready = {kind: undo.enter_context(contender(kind, rig, rig.servers(1))) for kind in kinds}
        for one in ready.values():
            # Connections are opened and code is loaded before the clock runs.
            one.run(rig.graphs.batch_of(2, 0.1))
        for repetition in range(max((cell.repeat for cell in cells), default=0)):
            for cell in (cell for cell in cells if repetition < cell.repeat):
                for kind in turned(cell.kinds, repetition):
                    run = run_once(rig, cell, kind, ready, repetition)
                    tell(
                        f"{kind:10} {cell.jobs} x {cell.seconds} s, batch {cell.batch}, "
                        f"S3 {cell.s3_ms} ms: span {run.span:.3f} s, makespan {run.makespan:.3f} s"
                    )
                    yield run


def turned(kinds: tuple[T, ...], by: int) -> tuple[T, ...]:
    """The same in another order: nobody always comes first."""
    by %= len(kinds)
    return kinds[by:] + kinds[:by]


def run_once(
    rig: Rig, cell: Cell, kind: Kind, ready: Mapping[Kind, Contender], repetition: int
) -> Run:
    """Have one contender do a cell's jobs."""
    (server,) = rig.servers(1)
    server.clear()
    rig.relay.seconds = cell.s3_ms / 1000
    rig.relay.requests.clear()
    workflows = rig.graphs.batch_of(cell.jobs, cell.seconds, cell.batch)
    sent = time.time()
    results = ready[kind].run(workflows)
    executions = server.executions(result.prompt_id for result in results)
    return Run(
        cell=cell,
        kind=kind,
        repetition=repetition,
        span=span(executions),
        makespan=max(result.at for result in results) - sent,
        execution=statistics.median(one.ended - one.started for one in executions),
        gap=statistics.median(gaps(executions) or [0.0]),
        s3_requests=dict(rig.relay.requests),
    )
