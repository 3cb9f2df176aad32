"""A job goes to a server that can run it, and fails at once where there is none."""

import time
from collections import Counter

import pytest
from celery.exceptions import TaskRevokedError

from tasks import errors
from tests.faults.scenes import eventually
from tests.integration.routing_fleet import (
    CASES,
    EIGHTH,
    HALF,
    ONLY_LATE,
    ONLY_OLD,
    Case,
    RoutingFleet,
    diffused,
    inverted,
    painted,
    unknown,
)
from workers.execution.job import prompt_id

pytestmark = pytest.mark.integration

# Seconds within which a job has moved and ended, on machines that are busy.
SOON = 25.0


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=name) for name, case in CASES.items() if case.places],
)
def test_a_job_runs_where_it_can_at_its_first_attempt(
    routing: RoutingFleet, case: Case, seed: int
) -> None:
    began = time.monotonic()
    # Several, so that some of them meet the wrong worker first.
    jobs = [routing.submit(case.workflow(seed + number)) for number in range(4)]
    for job in jobs:
        assert routing.where(job, SOON) in case.places
        assert len(routing.attempts(job)) == 1
    assert time.monotonic() - began < SOON


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=name) for name, case in CASES.items() if not case.places],
)
def test_what_no_server_can_run_fails_at_once_on_no_gpu(
    routing: RoutingFleet, case: Case, seed: int
) -> None:
    before = routing.executions()
    error = routing.submit(case.workflow(seed)).get(timeout=SOON, propagate=False)
    assert isinstance(error, Exception)
    assert type(error).__name__ == errors.InvalidWorkflowError.__name__
    assert routing.executions() == before


def test_the_failure_says_what_is_missing_and_what_is_nearly_it(
    routing: RoutingFleet, seed: int
) -> None:
    def message(workflow: dict) -> str:
        return str(routing.submit(workflow).get(timeout=SOON, propagate=False))

    assert message(painted(seed, ONLY_LATE)).startswith(
        f"node 4 (CheckpointLoaderSimple), input ckpt_name: the server does not have '{ONLY_LATE}'"
    )
    assert message(unknown(seed)).startswith(
        "node 2 (ImageInvertPlus): the server does not know its class"
    )
    quantised = message(diffused(seed, "flux1-dev-Q8_0.gguf"))
    # Whichever of the two servers has refused it, and whichever has what is near.
    assert f"{EIGHTH} in diffusion_models" in quantised
    assert f"{HALF} in diffusion_models" in quantised
    assert "no other server can run it" in quantised


def test_a_server_that_joins_later_gets_what_it_alone_can_run(
    routing: RoutingFleet, seed: int
) -> None:
    failed = routing.submit(painted(seed, ONLY_LATE)).get(timeout=SOON, propagate=False)
    assert isinstance(failed, Exception)
    routing.join("late", models=[f"checkpoints/{ONLY_LATE}"])
    try:
        jobs = [routing.submit(painted(seed + n, ONLY_LATE)) for n in range(1, 5)]
        assert Counter(routing.where(job, SOON) for job in jobs) == {"late": 4}
    finally:
        routing.leave("late")


def test_jobs_wait_for_a_server_that_is_away_and_whose_worker_is_not(
    routing: RoutingFleet, seed: int
) -> None:
    old = routing.places["old"].server
    old.stop()
    try:
        jobs = [routing.submit(painted(seed + n, ONLY_OLD)) for n in range(3)]
        others = [routing.submit(inverted(seed + n)) for n in range(3)]
        assert {routing.where(job, SOON) for job in others} == {"new"}
    finally:
        old.start()
    for job in jobs:
        assert routing.where(job) == "old"
        assert len(routing.attempts(job)) == 1


def test_a_job_that_was_cancelled_in_its_lane_is_not_begun(
    routing: RoutingFleet, seed: int
) -> None:
    fleet, old = routing.fleet, routing.places["old"].server
    old.stop()
    try:
        job = routing.submit(painted(seed, ONLY_OLD))
        eventually(lambda: fleet.in_lanes() == [job.id])
        job.revoke()
    finally:
        old.start()
    with pytest.raises(TaskRevokedError):
        job.get(timeout=30)
    eventually(lambda: fleet.in_lanes() == [])
    assert old.executions().get(prompt_id(job.id, 1)) is None
