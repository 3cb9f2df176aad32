"""The account of a soak for people."""

from tests.chaos.accounting import MOST_PICK_UP_SECONDS, MOST_WASTE, Report

# Of each kind of trouble, so many jobs are shown.
_SHOWN = 10


def table(report: Report) -> str:
    """One line a number, then the jobs that are in trouble, then the verdict."""
    faults = ", ".join(f"{count} {kind}" for kind, count in sorted(report.faults.items()))
    states = ", ".join(f"{count} {state}" for state, count in report.states.items())
    slowest = f" ({report.pick_ups[0].job_id})" if report.pick_ups else ""
    rows = {
        "jobs": f"{report.jobs}: {states}",
        "faults": f"{sum(report.faults.values())}: {faults or 'none'}",
        "lost": f"{len(report.lost)}",
        "committed twice": f"{len(report.twice)}",
        "ended wrongly": f"{len(report.wrong)}",
        "executions": f"{report.executions}",
        "GPU seconds": f"{report.gpu_seconds:.1f}",
        "  beyond one a job": f"{report.extra_seconds:.1f} ({report.waste:.1%})",
        "  destroyed by faults": f"{report.destroyed_seconds:.1f}",
        "worst pick-up": f"{report.worst_pick_up:.1f} s of {len(report.pick_ups)}{slowest}",
        "  broker there all the time": f"{report.worst_pick_up_with_broker:.1f} s",
        "objects without a manifest": f"{len(report.orphans)}",
        "workers that died by themselves": f"{report.crashes}",
    }
    width = max(map(len, rows))
    lines = [f"{name:{width}}  {value}" for name, value in rows.items()]
    for name in ("lost", "twice", "wrong"):
        told = getattr(report, name)
        lines += [f"{name}: {job_id} {text}" for job_id, text in list(told.items())[:_SHOWN]]
        if len(told) > _SHOWN:
            lines.append(f"{name}: and {len(told) - _SHOWN} more")
    goal = f"0 lost, 0 twice, {MOST_WASTE:.0%} waste, {MOST_PICK_UP_SECONDS:.0f} s pick-up"
    lines.append(f"{'within' if report.is_good else 'NOT within'} the goal: {goal}")
    return "\n".join(lines)
