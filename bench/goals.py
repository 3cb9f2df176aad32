"""What comfyfleet has to reach, and whether it does."""

from dataclasses import dataclass

from bench.figures import compared, shares, spread
from bench.model import Kind, Report
from bench.warm.figures import makespan_shares
from bench.warm.model import Order

# Of the limit's span a job, by the seconds that a job executes.
LEAST_SPAN = {1.0: 0.995, 0.3: 0.98, 0.1: 0.95}
# Seconds until the last short job has its result, beside long ones.
MOST_MIXED_SECONDS = 11.0
# On so many servers.
SMALLEST_MIX = 2
# Of a model, for each server that loads it at all.
MOST_LOADS = 1.2
# Of the makespan of plain FIFO.
MOST_WARM_MAKESPAN = 0.6
# Seconds after its turn that a job of a rare model begins.
MOST_LATE_SECONDS = 5.0
# Seconds beyond a single job's execution and two requests to the store.
MOST_OVERHEAD_SECONDS = 0.060


@dataclass(frozen=True)
class Verdict:
    """One goal: what it is of, what was measured, and what had to be."""

    what: str
    found: str
    goal: str
    is_met: bool


def verdicts(report: Report) -> list[Verdict]:
    """Of all goals that were measured."""
    found: list[Verdict] = []
    if not report.renders:
        # All goals are of jobs that execute for a known time.
        return found
    for cell in compared(report.runs):
        values = shares(report.runs, cell, Kind.OURS, "span")
        if values and (goal := LEAST_SPAN.get(cell.seconds)):
            share = spread(values).median
            what = f"span, {cell.seconds:g} s jobs"
            found.append(Verdict(what, f"{share:.3f}", f">= {goal}", share >= goal))
    mixes = [
        one for one in report.mixes if one.kind is Kind.OURS and one.mix.servers == SMALLEST_MIX
    ]
    for mix in dict.fromkeys(one.mix for one in mixes):
        seconds = spread(one.seconds for one in mixes if one.mix == mix).median
        what = f"long and short, {mix.servers} servers"
        goal = MOST_MIXED_SECONDS
        found.append(Verdict(what, f"{seconds:.2f} s", f"<= {goal:g} s", seconds <= goal))
    found += _warm_verdicts(report)
    for single in report.singles:
        if not single.single.timeline:
            overhead = spread(job.overhead for job in single.jobs).median
            what = f"single job, S3 {single.single.s3_ms} ms"
            goal = MOST_OVERHEAD_SECONDS
            told = f"{1000 * overhead:.0f} ms", f"<= {1000 * goal:.0f} ms"
            found.append(Verdict(what, *told, overhead <= goal))
    return found


def _warm_verdicts(report: Report) -> list[Verdict]:
    ours = [one for one in report.warm if one.order is Order.WARM]
    if not ours:
        return []
    loads = spread(one.loads / one.pairs for one in ours).median
    share = spread(makespan_shares(report.warm)).median
    late = max(one.late for one in report.rare)
    return [
        Verdict(
            "loads of a model on a server that loads it",
            *(f"{loads:.2f}", f"<= {MOST_LOADS:g}", loads <= MOST_LOADS),
        ),
        Verdict(
            "warm first, makespan of that of plain FIFO",
            *(f"{share:.2f}", f"<= {MOST_WARM_MAKESPAN:g}", share <= MOST_WARM_MAKESPAN),
        ),
        Verdict(
            "a rare model's job after its turn",
            *(f"{late:.2f} s", f"<= {MOST_LATE_SECONDS:g} s", late <= MOST_LATE_SECONDS),
        ),
    ]
