"""Batches on a worker: as we enqueue them, and as a bare producer does with Celery's own group."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from celery import Celery

from sandbox.stack import Stack
from tasks import Batch, BatchProgress, JobResult, enqueue_batch
from tasks.errors import InvalidWorkflowError
from tests.stack import bars

pytestmark = [
    pytest.mark.integration,
    pytest.mark.usefixtures("running_worker"),
    # By Celery, when a group is saved.
    pytest.mark.filterwarnings("ignore:Call to deprecated setex"),
]


@pytest.fixture
def celery(stack: Stack) -> Iterator[Celery]:
    with producer(stack) as app:
        yield app


@contextmanager
def producer(stack: Stack) -> Iterator[Celery]:
    """A process that enqueues or waits."""
    with Celery(broker=stack.valkey.url, backend=stack.valkey.url) as app:
        yield app
        app.backend.result_consumer.stop()
        app.backend.client.connection_pool.disconnect()


def test_a_batch_from_its_rows_to_its_results(
    celery: Celery, stack: Stack, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"1.seed": seed * 1000 + n, "1.seconds": 0.3 - n / 10} for n in range(3)]
    batch = enqueue_batch(bars(seed), rows, metadata={"a": "b"}, celery=celery)
    heard: list[BatchProgress] = []
    # As another process does it.
    with producer(stack) as other:
        # Many at once, and not one by one.
        monkeypatch.setattr(other.backend, "get_task_meta", None)
        restored = Batch.restore(batch.id, other)
        last = restored.wait(heard.append, timeout=30)
        results = restored.results()
    assert (last.states, last.value) == ({"SUCCESS": 3}, 1.0)
    assert [one.value for one in heard] == sorted(one.value for one in heard)
    assert [one.job_id for one in results] == list(batch.job_ids)
    assert [one.metadata for one in results] == [
        {"a": "b", "batch": batch.id, "row": str(row)} for row in (1, 2, 3)
    ]


def test_the_same_batch_is_rendered_once(celery: Celery, stack: Stack, seed: int) -> None:
    rows = [{"1.seed": seed * 1000 + n} for n in range(3)]
    before = len(stack.comfyui.executions())
    for _ in range(2):
        batch = enqueue_batch(bars(seed), rows, batch_id=f"twice-{seed}", celery=celery)
        first = [one.prompt_id for one in batch.results(timeout=30)]
    assert len(stack.comfyui.executions()) == before + 3
    assert [one.prompt_id for one in batch.results(timeout=30)] == first


def test_a_row_that_fails_fails_alone(celery: Celery, seed: int) -> None:
    rows = [{"1.seed": seed}, {"1.steps": 0}, {"1.mode": "okk"}]
    batch = enqueue_batch(bars(seed), rows, celery=celery)
    good, range_, choice = batch.results(timeout=30, raise_on_error=False)
    assert isinstance(good, JobResult)
    assert isinstance(range_, InvalidWorkflowError)
    assert "param '1.steps': node 1 (BarsRender), input steps: found 0" in str(range_)
    assert "param '1.mode': node 1 (BarsRender), input mode: found 'okk'" in str(choice)
    with pytest.raises(InvalidWorkflowError, match="input steps: found 0"):
        batch.results(timeout=30)


# A program, as Celery's handles of groups keep listening until they are collected.
BARE = """
import json, sys
from celery import Celery, group

app = Celery()
rows, ours = json.load(sys.stdin)
jobs = group(
    app.signature("comfyui.run_workflow", kwargs=one, queue="comfyui") for one in rows
).apply_async()
jobs.save()
of_ours = app.GroupResult.restore(ours)
print(json.dumps([[jobs.id, jobs.get(timeout=30)], of_ours.get(timeout=30)]))
"""


def test_a_group_is_a_batch_and_a_batch_is_a_group(celery: Celery, stack: Stack, seed: int) -> None:
    rows = [{"1.seed": seed * 1000 + n} for n in range(3)]
    ours = enqueue_batch(bars(seed), rows, celery=celery)
    given = [{"workflow": bars(seed), "params": {"1.seed": seed * 1000 + n}} for n in (3, 4)]
    done = subprocess.run(
        [sys.executable, "-c", BARE],
        input=json.dumps([given, ours.id]),
        env={"PATH": "/usr/bin:/bin", **stack.environment()},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (group_id, results), of_ours = json.loads(done.stdout)
    batch = Batch.restore(group_id, celery)
    assert [one.model_dump(mode="json") for one in batch.results()] == results
    assert [one["job_id"] for one in of_ours] == list(ours.job_ids)
