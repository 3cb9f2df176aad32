"""Measures how far it scales, part by part, each on a rig of its own."""

import time

from bench.rig import Rig, Tell
from bench.run import machine
from bench.scale.backlog import run_backlog
from bench.scale.costs import run_costs
from bench.scale.memory import run_memory
from bench.scale.model import ScaleReport
from bench.scale.throughput import run_throughput

PARTS = ("costs", "memory", "backlog", "throughput")

_SIZES = (1, 4, 16, 32)
_JOBS, _WAITING, _COUNTED, _MANY = 12, 100_000, 200, 3000
# To see that all of it works.
_QUICK_SIZES = (1, 2)
_QUICK_JOBS, _QUICK_WAITING, _QUICK_COUNTED, _QUICK_MANY = 4, 2000, 20, 100


def run_scale(parts: tuple[str, ...], *, quick: bool, tell: Tell) -> ScaleReport:
    """Measure.

    Args:
        parts: which.
        quick: less of each.
        tell: is told how far it is.
    """
    began = time.monotonic()
    many = _QUICK_MANY if quick else _MANY
    counted = _QUICK_COUNTED if quick else _COUNTED
    waiting = _QUICK_WAITING if quick else _WAITING
    with Rig.started() as rig:
        facts = machine(rig, ())
        costs = run_costs(rig, counted, tell) if "costs" in parts else None
        memory = run_memory(rig, many, tell) if "memory" in parts else None
    # What the first ones left in the store and in the broker's file must not slow the next.
    with Rig.started() as rig:
        backlog = run_backlog(rig, waiting, tell) if "backlog" in parts else None
    with Rig.started() as rig:
        sizes = _QUICK_SIZES if quick else _SIZES
        jobs = _QUICK_JOBS if quick else _JOBS
        throughput = tuple(run_throughput(rig, sizes, jobs, tell)) if "throughput" in parts else ()
    return ScaleReport(
        machine=facts,
        throughput=throughput,
        backlog=backlog,
        costs=costs,
        memory=memory,
        seconds=round(time.monotonic() - began, 1),
    )
