import uuid
from dataclasses import replace

import pytest

from tasks.errors import JobError, NodeFailedError
from tasks.request import JobRequest
from workers.execution.job import Job, prompt_id

JOB = Job(
    "job", JobRequest(workflow={"1": {}}), "http://gpu", "client", "folder", number=3, prompt=2
)


def test_the_prompt_id_is_the_attempts() -> None:
    assert prompt_id("job", 1) == prompt_id("job", 1)
    assert len({prompt_id("job", 1), prompt_id("job", 2), prompt_id("joc", 1)}) == 3
    assert str(uuid.UUID(prompt_id("job", 1))) == prompt_id("job", 1)


def test_no_two_jobs_share_a_prompt_id_by_their_spelling() -> None:
    assert prompt_id("job:1", 2) != prompt_id("job", 12)
    assert prompt_id("job", 1) != prompt_id("Job", 1)


def test_an_attempt_that_goes_on_with_a_prompt_has_its_id() -> None:
    assert JOB.prompt_id == prompt_id("job", 2)
    assert replace(JOB, number=4).prompt_id == JOB.prompt_id


@pytest.mark.parametrize(
    ("error", "told"),
    [(None, None), (NodeFailedError("node 3\nbroke"), "NodeFailedError: node 3 broke")],
)
def test_what_is_kept_of_an_attempt(error: JobError | None, told: str | None) -> None:
    assert JOB.attempt(1.23456, error).model_dump() == {
        "number": 3,
        "instance": "http://gpu",
        "prompt_id": prompt_id("job", 2),
        "error": told,
        "seconds": 1.235,
    }
