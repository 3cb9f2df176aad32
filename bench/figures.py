"""From what was seen to the numbers that are told."""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from bench.model import BenchError, Cell, Execution, Kind, Run


@dataclass(frozen=True)
class Spread:
    """A median with the least and the most that there was."""

    median: float
    least: float
    most: float
    count: int


def spread(values: Iterable[float]) -> Spread:
    """Summarise at least one value."""
    known = list(values)
    return Spread(statistics.median(known), min(known), max(known), len(known))


def execution_of(server: str, prompt_id: str, entry: Mapping[str, Any]) -> Execution:
    """When a prompt was executed, from its history entry.

    Raises:
        BenchError: it did not succeed.
    """
    # Milliseconds, stamped by the server itself: the same for every contender.
    stamps = {name: data["timestamp"] / 1000 for name, data in entry["status"]["messages"]}
    if "execution_success" not in stamps:
        raise BenchError(f"prompt {prompt_id} on {server} did not succeed: {entry['status']}")
    return Execution(server, prompt_id, stamps["execution_start"], stamps["execution_success"])


def span(executions: Iterable[Execution]) -> float:
    """Seconds from the first one's start to the last one's end."""
    known = list(executions)
    return max(one.ended for one in known) - min(one.started for one in known)


def gaps(executions: Iterable[Execution]) -> list[float]:
    """Seconds that each server had nothing to do between two executions."""
    of_server: dict[str, list[Execution]] = defaultdict(list)
    for one in sorted(executions, key=lambda one: one.started):
        of_server[one.server].append(one)
    return [
        after.started - before.ended
        for known in of_server.values()
        for before, after in pairwise(known)
    ]


def throughput(executions: Sequence[Execution]) -> float:
    """Executions a second while jobs waited: until the last one began.

    Of one that was not whole in that time its share counts.

    Raises:
        BenchError: none waited.
    """
    begin = min(one.started for one in executions)
    end = max(one.started for one in executions)
    if end == begin:
        raise BenchError("all jobs began at once: there are too few for a throughput")
    done = sum(
        max(0.0, min(one.ended, end) - one.started) / (one.ended - one.started)
        for one in executions
    )
    return done / (end - begin)


def compared(runs: Iterable[Run]) -> list[Cell]:
    """The cells that all contenders did, in the order of their doing."""
    return list(dict.fromkeys(run.cell for run in runs if Kind.SEQUENTIAL in run.cell.kinds))


def shares(runs: Iterable[Run], cell: Cell, kind: Kind, measure: str) -> list[float]:
    """The limit's time divided by a contender's, for each repetition that has both.

    Args:
        runs: among them those of the cell.
        cell: what was done.
        kind: the contender.
        measure: `span` or `makespan`.
    """
    times: dict[tuple[Kind, int], float] = {
        (run.kind, run.repetition): getattr(run, measure) for run in runs if run.cell == cell
    }
    return [
        times[Kind.LIMIT, repetition] / seconds
        for (who, repetition), seconds in times.items()
        if who is kind and (Kind.LIMIT, repetition) in times
    ]


def slope(points: Sequence[tuple[float, float]]) -> float:
    """By how much the second grows with the first: least squares."""
    return statistics.linear_regression(*zip(*points, strict=True)).slope
