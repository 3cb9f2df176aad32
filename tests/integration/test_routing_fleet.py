"""The fleet that routing is tested on is what it says: who can run what, and who did."""

import pytest
import requests

from tests.integration.routing_fleet import CASES, ONLY_LATE, Case, RoutingFleet, painted

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_servers_take_the_prompts_that_they_are_said_to(
    routing: RoutingFleet, case: Case, seed: int
) -> None:
    body = {"prompt": case.workflow(seed)}
    answers = {
        name: requests.post(f"{place.server.url}/prompt", json=body, timeout=10).json()
        for name, place in routing.places.items()
    }
    # With one good output among bad ones a prompt is accepted, which is not enough.
    took = {
        name for name, told in answers.items() if "prompt_id" in told and not told["node_errors"]
    }
    assert took == case.places


def test_it_is_known_where_a_job_ran_and_who_joined(routing: RoutingFleet, seed: int) -> None:
    for name in list(routing.places):
        routing.leave(name)
    late = routing.join("late", models=[f"checkpoints/{ONLY_LATE}"])
    job = routing.submit(painted(seed, ONLY_LATE))
    assert routing.where(job) == "late"
    assert routing.attempts(job) == ["late"]
    assert routing.executions() == {"late": 1}
    assert late.server.loads() == {f"checkpoints/{ONLY_LATE}": 1}
