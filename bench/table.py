"""The report in Markdown, for README and terminal alike."""

from collections.abc import Iterable, Sequence

from bench.figures import compared, shares, spread
from bench.goals import LEAST_SPAN, MOST_MIXED_SECONDS, SMALLEST_MIX, verdicts
from bench.model import Kind, Report, Run
from bench.warm.figures import makespan_shares
from bench.warm.model import Order, RareRun
from bench.waterfall import drawn, steps

_NOTHING = "-"


def markdown(report: Report) -> str:
    """The whole report."""
    facts = ", ".join(f"{name} {value}" for name, value in report.machine.items())
    parts = [
        (
            f"Measured by `python -m bench` in {report.seconds:.0f} s: {facts}. "
            "Medians [least, most]; shares are those of the direct limit in the same repetition."
        ),
        *report.notes,
        *_compared(report),
        *_cells(report),
        *_mixes(report),
        *_singles(report),
        *_slots(report),
        *_warm(report),
        *_waterfalls(report),
        *_goals(report),
    ]
    return "\n\n".join(parts) + "\n"


def rows(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """One table."""
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def told(values: Iterable[float], digits: int = 3, unit: str = "") -> str:
    """The median of some values, and the least and the most if there were several."""
    known = list(values)
    if not known:
        return _NOTHING
    summary = spread(known)
    median = f"{summary.median:.{digits}f}{unit}"
    if summary.count == 1:
        return median
    return f"{median} [{summary.least:.{digits}f}, {summary.most:.{digits}f}]"


def _compared(report: Report) -> list[str]:
    """The contenders beside each other: as the servers saw it, then as who waits sees it."""
    cells = compared(report.runs)
    if not cells:
        return []
    lengths = [length(cell.seconds, report) for cell in cells]
    spans, makespans = (
        [
            [kind.label, *(told(shares(report.runs, cell, kind, what)) for cell in cells)]
            for kind in Kind
        ]
        for what in ("span", "makespan")
    )
    if report.renders:
        spans.append(["goal", *(f"≥ {LEAST_SPAN[cell.seconds]}" for cell in cells)])
    mixed = [one for one in report.mixes if one.mix.servers == SMALLEST_MIX]
    if mixed:
        of_kind = [told((one.seconds for one in mixed if one.kind is kind), 1) for kind in Kind]
        goal = f"≤ {MOST_MIXED_SECONDS:g}"
        spans = [[*row, cell] for row, cell in zip(spans, [*of_kind, goal], strict=True)]
    return [
        (
            "GPU busy share (*span*: first execution's start to the last one's end, as the server "
            "says it):"
        ),
        rows(["", *lengths, *["ten of 1 s beside one of 20 s, 2 servers, s"] * bool(mixed)], spans),
        "The same of the *makespan*, from the first job's sending to the last result:",
        rows(["", *lengths], makespans),
    ]


def length(seconds: float, report: Report) -> str:
    """The name of jobs that execute so long."""
    return f"{seconds:g} s jobs" if report.renders else "jobs"


def _cells(report: Report) -> list[str]:
    cells = dict.fromkeys(run.cell for run in report.runs)
    body = []
    for cell in cells:
        for kind in cell.kinds:
            mine = [run for run in report.runs if (run.cell, run.kind) == (cell, kind)]
            body.append(
                [
                    length(cell.seconds, report),
                    f"{cell.batch}",
                    f"{cell.s3_ms} ms",
                    kind.label,
                    told(shares(report.runs, cell, kind, "span")),
                    told(shares(report.runs, cell, kind, "makespan")),
                    told((1000 * run.execution for run in mine), 0),
                    told((1000 * run.gap for run in mine), 0),
                    _s3(mine),
                ]
            )
    head = ["jobs", "images", "S3", "who", "span", "makespan", "execution, ms", "gap, ms"]
    return [
        "Everything that was run; *gap* is the time between two executions:",
        rows([*head, "S3 requests a job"], body),
    ] * bool(body)


def _s3(runs: Sequence[Run]) -> str:
    methods = sorted({method for run in runs for method in run.s3_requests})
    jobs = sum(run.cell.jobs for run in runs)
    a_job = {name: sum(run.s3_requests.get(name, 0) for run in runs) / jobs for name in methods}
    return ", ".join(f"{count:.2g} {name}" for name, count in a_job.items()) or _NOTHING


def _mixes(report: Report) -> list[str]:
    body = [
        [
            f"{mix.servers}",
            (
                f"{mix.servers // 2 * mix.shorts} of {mix.short_seconds:g} s beside "
                f"{mix.servers // 2} of {mix.long_seconds:g} s"
            ),
            kind.label,
            told(
                (one.seconds for one in report.mixes if (one.mix, one.kind) == (mix, kind)), 1, " s"
            ),
        ]
        for mix in dict.fromkeys(one.mix for one in report.mixes)
        for kind in mix.kinds
    ]
    return [
        (
            "Long and short jobs in one queue, the long ones first: until the last short one has "
            "its result."
        ),
        rows(["servers", "jobs", "who", "seconds"], body),
    ] * bool(body)


def _singles(report: Report) -> list[str]:
    body = [
        [
            length(one.single.seconds, report),
            f"{one.single.s3_ms} ms",
            told((1000 * job.total for job in one.jobs), 0),
            told((1000 * job.execution for job in one.jobs), 0),
            told((1000 * job.s3_request for job in one.jobs), 0),
            told((1000 * job.overhead for job in one.jobs), 0),
        ]
        for one in report.singles
        if not one.single.timeline
    ]
    head = ["job", "S3", "total, ms", "execution, ms", "one S3 request, ms"]
    return [
        (
            "A single job on an idle worker; *beyond* is what it takes besides its execution and "
            "two requests to the store:"
        ),
        rows([*head, "beyond, ms"], body),
    ] * bool(body)


def _slots(report: Report) -> list[str]:
    body = [
        [f"{one.tried.slots}", told(shares(one.runs, one.tried.cell, Kind.OURS, "span"))]
        for one in report.slots
    ]
    cells = {one.tried.cell for one in report.slots}
    what = ", ".join(f"{length(cell.seconds, report)}, S3 {cell.s3_ms} ms" for cell in cells)
    return [
        f"How many slots a worker needs ({what}; span, `WORKER_SLOTS`):",
        rows(["slots", "span"], body),
    ] * bool(body)


def _warm(report: Report) -> list[str]:
    found = []
    for warm in dict.fromkeys(one.warm for one in report.warm):
        mine = {
            order: [one for one in report.warm if (one.warm, one.order) == (warm, order)]
            for order in Order
        }
        shares_of = {
            Order.FIFO: [1.0],
            Order.WARM: makespan_shares([one for runs in mine.values() for one in runs]),
        }
        body = [
            [
                order.label,
                told((one.loads for one in runs), 0),
                told((one.loads / one.pairs for one in runs), 2),
                told((one.makespan for one in runs), 1, " s"),
                told(shares_of[order], 2),
                told((one.idle for one in runs), 3),
            ]
            for order, runs in mine.items()
        ]
        least = [f"{warm.models}", "1.00", f"{warm.least_seconds:.1f} s"]
        of_fifo = (warm.least_seconds / one.makespan for one in mine[Order.FIFO])
        body.append(["best possible", *least, told(of_fifo, 2), "0.000"])
        found += [
            (
                f"{warm.models} checkpoints, {warm.jobs} jobs of {warm.job_seconds:g} s each, "
                f"shuffled, on {warm.servers} servers with none loaded; a load takes "
                f"{warm.load_seconds:g} s. *Each* is loads of a model on a server that loads it "
                "at all, *idle* the share of their time that servers do nothing while jobs wait:"
            ),
            rows(["order", "loads", "each", "makespan", "of FIFO", "idle"], body),
        ]
    return [*found, *map(_rare, report.rare)]


def _rare(one: RareRun) -> str:
    more = one.overtakers
    overtaking = f"{more} overtook it" if more >= 0 else f"it overtook {-more}"
    return (
        f"A job of one more checkpoint, number {one.warm.ahead + 1} of {one.warm.crowd + 1} that "
        f"were sent at once, began after {one.wait:.1f} s, {one.late:.1f} s after its turn; "
        f"{overtaking}, and the last of all began after {one.crowd:.1f} s."
    )


def _waterfalls(report: Report) -> list[str]:
    found = []
    for one in (one for one in report.singles if one.single.timeline):
        name = length(one.single.seconds, report)
        what = f"{name}, S3 {one.single.s3_ms} ms, median of {len(one.jobs)}"
        picture = drawn(steps([job.marks for job in one.jobs]))
        found += [f"Where the time of such a job goes ({what}):", f"```text\n{picture}\n```"]
    return found


def _goals(report: Report) -> list[str]:
    body = [
        [one.what, one.found, one.goal, "reached" if one.is_met else "**missed**"]
        for one in verdicts(report)
    ]
    return [rows(["goal of", "found", "goal", ""], body)] * bool(body)
