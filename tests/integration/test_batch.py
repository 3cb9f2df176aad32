"""Batches on a worker: as we enqueue them, and as a bare producer does with Celery's own group."""

import gc
from collections.abc import Iterator

import pytest
from celery import Celery, group

from sandbox.stack import Stack
from tasks import Batch, BatchProgress, JobResult, enqueue_batch
from tasks.errors import InvalidWorkflowError
from tests.stack import Client, bars

pytestmark = [
    pytest.mark.integration,
    pytest.mark.usefixtures("running_worker"),
    # By Celery, when a group is saved.
    pytest.mark.filterwarnings("ignore:Call to deprecated setex"),
]


@pytest.fixture
def celery(stack: Stack) -> Iterator[Celery]:
    with Celery(broker=stack.valkey.url, backend=stack.valkey.url) as app:
        yield app
        app.backend.result_consumer.stop()


def test_a_batch_from_its_rows_to_its_results(celery: Celery, stack: Stack, seed: int) -> None:
    rows = [{"1.seed": seed * 1000 + n, "1.seconds": 0.3 - n / 10} for n in range(3)]
    batch = enqueue_batch(bars(seed), rows, metadata={"a": "b"}, celery=celery)
    heard: list[BatchProgress] = []
    # As another process does it.
    with Celery(broker=stack.valkey.url, backend=stack.valkey.url) as other:
        restored = Batch.restore(batch.id, other)
        last = restored.wait(heard.append, timeout=30)
        results = restored.results()
        other.backend.result_consumer.stop()
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


def test_a_group_of_a_bare_producer_is_a_batch(client: Client, celery: Celery, seed: int) -> None:
    workflow = bars(seed)
    jobs = group(
        client.celery.signature(
            "comfyui.run_workflow",
            kwargs={"workflow": workflow, "params": {"1.seed": seed * 1000 + n}},
            queue="comfyui",
        )
        for n in range(3)
    )
    handle = jobs.apply_async()
    handle.save()
    plain = handle.get(timeout=30)
    assert [one["job_id"] for one in plain] == [one.id for one in handle.results]
    batch = Batch.restore(handle.id, celery)
    assert [one.model_dump(mode="json") for one in batch.results()] == plain
    # Celery's handles end their listening when they are collected, which needs a broker.
    del handle, jobs
    gc.collect()


def test_a_batch_of_ours_is_a_group_of_celerys(client: Client, celery: Celery, seed: int) -> None:
    batch = enqueue_batch(
        bars(seed), [{"1.seed": seed * 1000 + n} for n in range(2)], celery=celery
    )
    handle = client.celery.GroupResult.restore(batch.id)
    assert [one["job_id"] for one in handle.get(timeout=30)] == list(batch.job_ids)
    del handle
    gc.collect()
