"""What is measured, in which order, how often."""

from dataclasses import dataclass, replace

from bench.model import Cell, Kind, Mix, Single, SlotsTried
from bench.warm.model import Warm

PARTS = ("main", "variants", "single", "mixed", "slots", "warm", "waterfall")

_ALL = tuple(Kind)
_PAIR = (Kind.LIMIT, Kind.OURS)
_FEW = (Kind.LIMIT, Kind.PLAIN_2, Kind.OURS)

# Jobs of each length, such that each contender takes some seconds.
_JOBS = {1.0: 4, 0.3: 10, 0.1: 20}
_QUICK_JOBS = {1.0: 2, 0.3: 4, 0.1: 8}
_FAR, _NEAR = 250, 5
_SLOTS = (2, 4, 8, 12, 16)
# A load takes as long as four jobs, as that of a checkpoint of 7 GB and pictures of some seconds.
# Of the crowd's jobs there are enough to keep all servers busy for seven seconds.
_WARM = Warm(
    servers=4,
    models=4,
    jobs=10,
    job_seconds=0.3,
    load_seconds=1.2,
    crowd=100,
    ahead=8,
    repeat=1,
)


@dataclass(frozen=True)
class Plan:
    """What one run of the benchmark does."""

    cells: tuple[Cell, ...] = ()
    mixes: tuple[Mix, ...] = ()
    singles: tuple[Single, ...] = ()
    slots: tuple[SlotsTried, ...] = ()
    warm: tuple[Warm, ...] = ()


def plan(parts: tuple[str, ...] = PARTS, repeat: int = 3) -> Plan:
    """The whole benchmark, or parts of it."""
    cells: list[Cell] = []
    mixes: list[Mix] = []
    singles: list[Single] = []
    slots: list[SlotsTried] = []
    if "main" in parts:
        cells += [Cell(s, 1, _FAR, jobs, _ALL, repeat) for s, jobs in _JOBS.items()]
        # Where an execution takes so long, little of it depends on anybody.
        cells.append(Cell(5.0, 1, _FAR, 2, _PAIR, 1))
    if "variants" in parts:
        cells += [Cell(0.3, 8, s3, 6, _PAIR, repeat) for s3 in (_FAR, _NEAR)]
        cells += [Cell(s, 1, _NEAR, _JOBS[s], _FEW, repeat) for s in (0.3, 0.1)]
    if "single" in parts:
        singles += [Single(0.3, _FAR, 6), Single(0.3, _NEAR, 6)]
    if "mixed" in parts:
        mixes.append(_mix(2, _ALL, repeat))
        mixes += [_mix(servers, (Kind.OURS,), repeat) for servers in (4, 16)]
    if "slots" in parts:
        # The shortest jobs and the store that is farthest away need most.
        cell = Cell(0.1, 1, _FAR, 40, _PAIR, repeat)
        slots += [SlotsTried(count, cell) for count in _SLOTS]
    warm = [replace(_WARM, repeat=repeat)] if "warm" in parts else []
    if "waterfall" in parts:
        singles.append(Single(0.3, _FAR, 6, timeline=True))
    return Plan(tuple(cells), tuple(mixes), tuple(singles), tuple(slots), tuple(warm))


def quick_plan() -> Plan:
    """Less than a minute of it, to see that all of it works."""
    cells = [Cell(s, 1, _FAR, jobs, _ALL, 1) for s, jobs in _QUICK_JOBS.items()]
    return Plan(tuple(cells), (), (Single(0.3, _FAR, 3, timeline=True),))


def possible(plan: Plan, *, renders: bool, servers: int | None) -> tuple[Plan, tuple[str, ...]]:
    """What of a plan these servers can do, and why not the rest.

    Args:
        plan: for stand-ins.
        renders: whether jobs can be told how long to execute.
        servers: how many there are; None for as many as wanted.
    """
    cells, mixes, warm, notes = plan.cells, plan.mixes, plan.warm, []
    if not renders:
        # All lengths are one: the first cell of each batch and distance stands for the others.
        of_kind = {(cell.batch, cell.s3_ms): cell for cell in reversed(cells)}
        cells = tuple(cell for cell in cells if cell in of_kind.values())
        mixes = ()
        notes.append(
            "The servers have no BarsRender: jobs are EmptyImage and SaveImage, take the time "
            "that these take, and cannot be long and short."
        )
    if servers is not None:
        left_out = [mix.servers for mix in mixes if mix.servers > servers]
        mixes = tuple(mix for mix in mixes if mix.servers <= servers)
        if left_out:
            notes.append(f"Left out for want of servers: long and short mixed on {left_out}.")
        if warm:
            warm = ()
            notes.append("Left out, since only stand-ins tell of their loads: warm first.")
    return Plan(cells, mixes, plan.singles, plan.slots, warm), tuple(notes)


def _mix(servers: int, kinds: tuple[Kind, ...], repeat: int) -> Mix:
    return Mix(servers, 20.0, 1.0, 10, _FAR, kinds, repeat)
