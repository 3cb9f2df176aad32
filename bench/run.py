"""Carries out a plan on one set of servers and one store."""

import os
import platform
import time
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from bench.cells import run_cells
from bench.mixes import run_mixes
from bench.model import RENDER, Report
from bench.plan import Plan, possible
from bench.rig import Rig, Tell
from bench.singles import run_singles
from bench.slots import run_slots
from bench.warm.model import RareRun, WarmRun
from bench.warm.run import run_warm
from bench.workflows import SIDE


def run(plan: Plan, urls: Sequence[str], tell: Tell) -> Report:
    """Measure.

    Args:
        plan: what.
        urls: of real servers; without any, stand-ins are started.
        tell: is told how far it is.
    """
    began = time.monotonic()
    with Rig.started(urls) as rig:
        able = len(urls) if urls else None
        plan, notes = possible(plan, renders=rig.graphs.renders, servers=able)
        warm = tuple(run_warm(rig, plan.warm, tell))
        return Report(
            machine=machine(rig, urls),
            runs=tuple(run_cells(rig, plan.cells, tell)),
            singles=tuple(run_singles(rig, plan.singles, tell)),
            mixes=tuple(run_mixes(rig, plan.mixes, tell)),
            slots=tuple(run_slots(rig, plan.slots, tell)),
            warm=tuple(one for one in warm if isinstance(one, WarmRun)),
            rare=tuple(one for one in warm if isinstance(one, RareRun)),
            notes=notes,
            seconds=round(time.monotonic() - began, 1),
        )


def machine(rig: Rig, urls: Sequence[str]) -> dict[str, Any]:
    """What everything ran on."""
    (server,) = rig.servers(1)
    return {
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "celery": version("celery"),
        "kombu": version("kombu"),
        "servers": "real" if urls else "stand-in",
        "comfyui": server.version(),
        "graph": RENDER if rig.graphs.renders else "EmptyImage",
        "image": f"{SIDE} x {SIDE} PNG",
    }
