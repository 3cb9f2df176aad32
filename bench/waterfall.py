"""One job from queued to result: where each millisecond goes."""

import re
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# What a worker logs at DEBUG: `timeline <job id> <mark> <Unix time>`.
_LINE = re.compile(r"timeline (\S+) (\w+) (\d+\.\d+)$", re.MULTILINE)

# Every name that a millisecond can have: what a job does until it passes the mark.
MARKS = {
    "queued": "sent by the producer",
    "received": "taken from the broker by a worker",
    "claimed": "the worker has the job's lease",
    "staged": "workflow checked, inputs placed",
    "posted": "the server has the prompt",
    "started": "execution begun, as the server says",
    "finished": "executed, as the server says",
    "seen": "the worker knows it, and the outputs",
    "downloaded": "the files are read from the server",
    "uploaded": "the files are in the store",
    "committed": "the manifest is in the store",
    "recorded": "the job's end is in the ledger",
    "acknowledged": "the message is gone from the broker",
    "result": "the producer has the result",
}

_BAR = 36


@dataclass(frozen=True)
class Step:
    """A mark; milliseconds, of several jobs the median.

    Attributes:
        mark: its name.
        at: after `queued`.
        took: after the step before it, in the order of time.
    """

    mark: str
    at: float
    took: float


def marks_in(log: str) -> dict[str, dict[str, float]]:
    """Unix times in seconds by mark, by job; of a mark that came several times the last."""
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for job_id, mark, at in _LINE.findall(log):
        found[job_id][mark] = float(at)
    return dict(found)


def steps(jobs: Sequence[Mapping[str, float]]) -> list[Step]:
    """The waterfall of like jobs, from their marks; a mark that not all have is left out."""
    offsets = {
        mark: statistics.median(1000 * (job[mark] - job["queued"]) for job in jobs)
        for mark in MARKS
        if all(mark in job for job in jobs)
    }
    found: list[Step] = []
    for mark, at in sorted(offsets.items(), key=lambda item: item[1]):
        found.append(Step(mark, at, at - found[-1].at if found else 0.0))
    return found


def drawn(found: Sequence[Step]) -> str:
    """The waterfall for people: a line a step."""
    whole = max(step.at for step in found) or 1.0
    lines = [f"{'':12} {'at ms':>8} {'took ms':>8}"]
    for step in found:
        begin = round(_BAR * (step.at - step.took) / whole)
        length = max(1, round(_BAR * step.at / whole) - begin)
        # Of a mark without a length there is something to see, too.
        bar = " " * min(begin, _BAR - 1) + "█" * length
        told = f"{step.mark:12} {step.at:8.1f} {step.took:8.1f}  {bar:{_BAR}}  {MARKS[step.mark]}"
        lines.append(told.rstrip())
    return "\n".join(lines)
