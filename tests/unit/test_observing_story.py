"""Events as lines of a job's story, and the lines that wait to be written."""

from typing import Any

import pytest

from tasks.errors import InvalidRequestError, PromptLostError
from workers.observing import (
    AttemptBegan,
    AttemptEnded,
    Event,
    FileStored,
    JobEnded,
    JobLeft,
    JobSuppressed,
    JobTaken,
    NodesExecuted,
    StageEnded,
)
from workers.observing.stories import MOST_WAITING, StoryLines
from workers.observing.story import line_of

LOST = PromptLostError("it is gone")


@pytest.mark.parametrize(
    ("event", "told", "weight"),
    [
        (
            JobTaken("j", enqueued_at=1.0, taken_at=2.5, is_new=True, redelivered=False),
            {"event": "taken", "at": 2.5, "worker": "w", "enqueued_at": 1.0, "is_new": True},
            "must",
        ),
        (
            JobTaken("j", enqueued_at=1.0, taken_at=2.5, is_new=False, redelivered=True),
            {"event": "taken", "at": 2.5, "worker": "w", "enqueued_at": 1.0, "is_new": False},
            "must",
        ),
        (
            AttemptBegan("j", 2, prompt_id="p", instance="http://a", start="adopt"),
            {
                "event": "attempt_began",
                "number": 2,
                "start": "adopt",
                "instance": "http://a",
                "prompt_id": "p",
            },
            "must",
        ),
        (
            StageEnded("j", "uploading", ended_at=3.0, seconds=0.12345),
            {"event": "stage_ended", "at": 3.0, "stage": "uploading", "seconds": 0.123},
            "must",
        ),
        (
            FileStored("j", "9", "a/b.png", 512, ended_at=4.0, seconds=0.1),
            {
                "event": "file_stored",
                "at": 4.0,
                "node_id": "9",
                "key": "a/b.png",
                "size_bytes": 512,
            },
            "may",
        ),
        (
            AttemptEnded("j", 1, LOST, again_in=2.0),
            {
                "event": "attempt_ended",
                "number": 1,
                "error": "PromptLostError: it is gone",
                "again_in": 2.0,
            },
            "must",
        ),
        (
            JobEnded("j", "failed", LOST),
            {"event": "ended", "outcome": "failed", "error": "PromptLostError: it is gone"},
            "must",
        ),
        (
            JobEnded("j", "failed", InvalidRequestError("no")),
            {"event": "ended", "outcome": "failed", "error": "InvalidRequestError: no"},
            "refused",
        ),
        (
            JobEnded("j", "succeeded"),
            {"event": "ended", "outcome": "succeeded", "error": None},
            "must",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Event) else "",
)
def test_each_event_is_a_line(event: Event, told: dict[str, Any], weight: str) -> None:
    line = line_of(event, "w")
    assert line is not None
    assert (line.job_id, line.weight) == ("j", weight)
    # Of what has no moment of its own it is that of the telling.
    assert line.told["at"] > 0
    assert {name: value for name, value in line.told.items() if name in told} == told
    assert set(line.told) == {*told, "at"}


@pytest.mark.parametrize(
    "event",
    [JobSuppressed("j", "held"), NodesExecuted("j", ()), JobLeft("j")],
    ids=lambda event: type(event).__name__,
)
def test_what_is_no_part_of_the_story(event: Event) -> None:
    assert line_of(event, "w") is None


def began(number: int) -> AttemptBegan:
    return AttemptBegan("j", number, prompt_id="p", instance="i", start="submit")


def test_lines_wait_in_their_order() -> None:
    lines = StoryLines("w")
    assert not lines.come.is_set()
    for number in (1, 2, 3):
        lines(began(number))
    assert lines.come.is_set()
    assert [line.told["number"] for line in lines.take(2)] == [1, 2]
    # One is left.
    assert lines.come.is_set()
    assert [line.told["number"] for line in lines.take(2)] == [3]
    assert not lines.come.is_set()
    assert lines.take(2) == []


def test_while_nobody_takes_them_the_oldest_are_lost() -> None:
    lines = StoryLines("w")
    for number in range(MOST_WAITING + 5):
        lines(began(number))
    taken = lines.take(2 * MOST_WAITING)
    assert len(taken) == MOST_WAITING
    assert taken[0].told["number"] == 5
