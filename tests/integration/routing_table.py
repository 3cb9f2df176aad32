"""`python -m tests.integration.routing_table`: what became of each kind of job, as a table."""

import time
from collections import Counter
from collections.abc import Iterator
from itertools import count

from celery.result import AsyncResult

from sandbox.processes import end_as_interrupted
from sandbox.stack import Stack
from tests.faults.scenes import Fleet
from tests.integration.routing_fleet import CASES, ONLY_LATE, ONLY_OLD, RoutingFleet, painted

_JOBS = 4
_SEEDS = count(1)


def main() -> None:
    """Start a fleet of two servers that differ, run each kind of job, and print the table."""
    with Stack() as stack, Fleet(stack) as fleet:
        routing = RoutingFleet(fleet)
        print("| a job that needs | can run it | ran at | attempts | executions elsewhere | s |")
        print("| --- | --- | --- | --- | --- | --- |")
        for row in _rows(routing):
            print(f"| {' | '.join(row)} |", flush=True)


def _rows(routing: RoutingFleet) -> Iterator[tuple[str, ...]]:
    for name, case in CASES.items():
        able = ", ".join(sorted(case.places)) or "none"
        yield name, able, *_outcome(routing, [case.workflow(next(_SEEDS)) for _ in range(_JOBS)])
    routing.join("late", models=[f"checkpoints/{ONLY_LATE}"])
    late = [painted(next(_SEEDS), ONLY_LATE) for _ in range(_JOBS)]
    yield "a checkpoint of one that joined since", "late", *_outcome(routing, late)
    routing.leave("late")
    routing.places["old"].server.stop()
    jobs = [routing.submit(painted(next(_SEEDS), ONLY_OLD)) for _ in range(_JOBS)]
    time.sleep(3.0)
    routing.places["old"].server.start()
    yield "a checkpoint of one that is away for 3 s", "old", *_told(routing, jobs, time.monotonic())


def _outcome(routing: RoutingFleet, workflows: list[dict]) -> tuple[str, ...]:
    began = time.monotonic()
    return _told(routing, [routing.submit(workflow) for workflow in workflows], began)


def _told(routing: RoutingFleet, jobs: list[AsyncResult], began: float) -> tuple[str, ...]:
    ends = [job.get(timeout=60, propagate=False) for job in jobs]
    seconds = f"{time.monotonic() - began:.1f}"
    results = [end for end in ends if isinstance(end, dict)]
    if not results:
        return f"failed: {ends[0]}", "", "", seconds
    where = Counter(routing.name_of(result["instance"]) for result in results)
    ran = ", ".join(f"{name} x {number}" for name, number in sorted(where.items()))
    attempts = ", ".join(sorted({str(len(result["attempts"])) for result in results}))
    prompts = {result["prompt_id"] for result in results}
    begun = sum(
        place.server.executions().get(prompt, 0)
        for place in routing.places.values()
        for prompt in prompts
    )
    return ran, attempts, str(begun - len(results)), seconds


if __name__ == "__main__":
    end_as_interrupted()
    main()
