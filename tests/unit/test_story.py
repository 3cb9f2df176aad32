"""A job's story: which events are told, in which words, and at which level."""

import logging

import pytest

from tasks.errors import JobCancelledError, NodeFailedError, PromptLostError
from tasks.result import Attempt, JobResult, ObjectRef, Timings
from workers.logs.story import tell
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

INSTANCE = "http://gpu:8188"


def result(attempts: int) -> JobResult:
    attempt = Attempt(number=1, instance=INSTANCE, prompt_id="p", error=None, seconds=1.0)
    return JobResult(
        job_id="a",
        prompt_id="p",
        instance=INSTANCE,
        worker="w",
        attempts=[attempt] * attempts,
        metadata={},
        outputs=[],
        manifest=ObjectRef(bucket="b", key="a/manifest.json"),
        timings=Timings(queued=0.5, staged=0.1, executed=3.25, uploaded=1, total=4.4, nodes={}),
        values={},
    )


def taken(*, is_new: bool) -> JobTaken:
    return JobTaken("a", enqueued_at=100.0, taken_at=102.5, is_new=is_new, redelivered=False)


def stored(files: int) -> StageEnded:
    return StageEnded("a", "uploading", 0.0, 0.26, files)


@pytest.mark.parametrize(
    ("event", "level", "message"),
    [
        (taken(is_new=True), "INFO", "received after 2.5 s in the queue"),
        (taken(is_new=False), "DEBUG", "received again"),
        (
            JobSuppressed("a", "held"),
            "INFO",
            "came again while somebody has it; looked at later",
        ),
        (JobSuppressed("a", "held", redelivered=True), "DEBUG", "came again while somebody"),
        (JobSuppressed("a", "ended"), "INFO", "came again after its end, which is told again"),
        (
            AttemptBegan("a", 1, "p", INSTANCE, "submit"),
            "INFO",
            "attempt 1 on http://gpu:8188 submits prompt p",
        ),
        (
            AttemptBegan("a", 2, "p", INSTANCE, "adopt"),
            "INFO",
            "attempt 2 on http://gpu:8188 goes on with prompt p",
        ),
        (
            AttemptBegan("a", 2, "p", INSTANCE, "collect"),
            "INFO",
            "attempt 2 on http://gpu:8188 collects prompt p",
        ),
        (StageEnded("a", "staging", 0.0, 0.1), "INFO", "the server has the prompt after 0.1 s"),
        (StageEnded("a", "executing", 0.0, 3.25), "INFO", "executed in 3.2 s"),
        (stored(1), "INFO", "1 file stored 0.3 s after that"),
        (stored(0), "INFO", "0 files stored 0.3 s after that"),
        (StageEnded("a", "committing", 0.0, 0.5), "DEBUG", "committed in 0.50 s"),
        (FileStored("a", "9", "a/1/9/0-x.png", 10, 0.0, 0.5), "DEBUG", "a/1/9/0-x.png stored"),
        (
            AttemptEnded("a", 1, PromptLostError("gone"), again_in=1.5),
            "WARNING",
            "attempt 1 failed, again in 1.5 s: gone",
        ),
        (
            JobEnded("a", "succeeded", result=result(1)),
            "INFO",
            "finished (seconds: queued 0.5, staged 0.1, executed 3.2, uploaded 1.0, total 4.4)",
        ),
        (JobEnded("a", "succeeded", result=result(2)), "INFO", "finished at attempt 2 ("),
        (
            JobEnded("a", "failed", NodeFailedError("node 1 failed")),
            "WARNING",
            "failed: NodeFailedError: node 1 failed",
        ),
        (
            JobEnded("a", "cancelled", JobCancelledError("the job was revoked")),
            "INFO",
            "cancelled: JobCancelledError: the job was revoked",
        ),
    ],
)
def test_what_happens_is_told(
    event: Event, level: str, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    tell(event)
    (record,) = caplog.records
    assert record.levelname == level
    assert record.getMessage().startswith(message)


@pytest.mark.parametrize(
    "event",
    [
        # The end of the job tells of these, or its next attempt.
        AttemptEnded("a", 1),
        AttemptEnded("a", 3, NodeFailedError("x")),
        NodesExecuted("a", ()),
        JobLeft("a"),
    ],
)
def test_what_follows_from_the_rest_is_not(event: Event, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    tell(event)
    assert caplog.records == []


def test_lines_have_what_programs_look_for(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    tell(AttemptEnded("a", 1, PromptLostError("gone"), again_in=1.23456))
    tell(JobEnded("a", "failed", NodeFailedError("x")))
    tell(stored(2))
    assert [record.fields for record in caplog.records] == [  # type: ignore[attr-defined]
        {"error": "PromptLostError", "again_in_seconds": 1.235},
        {"outcome": "failed", "error": "NodeFailedError"},
        {"files": 2, "uploaded_seconds": 0.26},
    ]
