"""A job's story in lines for people: when what happened, and where."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cli.times import duration

_STARTS = {
    "submit": "attempt {number} begins on {instance}",
    "adopt": "attempt {number} goes on with the prompt that {instance} has",
    "collect": "attempt {number} collects what {instance} has rendered",
}


@dataclass(frozen=True)
class Moment:
    """A line of the story, and when that was, Unix time."""

    at: float
    text: str


def moments(lines: Iterable[Mapping[str, Any]]) -> list[Moment]:
    """The story of a job, each file that was stored left out: they are listed beside it."""
    told: list[Moment] = []
    for line in lines:
        enqueued_at = line.get("enqueued_at")
        if enqueued_at and not told:
            told.append(Moment(float(enqueued_at), "enqueued"))
        text = _text(line)
        if text:
            told.append(Moment(float(line.get("at", 0.0)), text))
    return told


def _text(line: Mapping[str, Any]) -> str:
    """What a line says; nothing if it is one of a later version."""
    match line:
        case {"event": "taken", "worker": worker}:
            return f"taken by {worker}"
        case {"event": "attempt_began", "start": start, "number": number, "instance": instance}:
            return _STARTS.get(start, _STARTS["submit"]).format(number=number, instance=instance)
        case {"event": "stage_ended", "stage": stage, "seconds": seconds}:
            return f"{stage} took {duration(float(seconds))}"
        case {"event": "attempt_ended", "number": number, "error": error}:
            return _attempt_ended(number, error, line.get("again_in"))
        case {"event": "ended", "outcome": outcome, "error": error}:
            return f"{outcome}: {error}" if error else str(outcome)
    return ""


def _attempt_ended(number: int, error: str | None, again_in: float | None) -> str:
    if error is None:
        return ""
    again = f"; again in {duration(again_in)}" if again_in is not None else ""
    return f"attempt {number} failed{again}: {error}"
