"""The typed `enqueue`: checked before it is sent, and with Celery's own words."""

from collections.abc import Iterator
from typing import Any

import pytest
import redis
from celery import Celery

from sandbox.stack import Stack
from sandbox.valkey import Valkey
from tasks import JobError, JobResult, enqueue
from tasks.errors import BrokerFullError, InvalidRequestError, InvalidWorkflowError
from tests.stack import bars

pytestmark = pytest.mark.integration


@pytest.fixture
def celery(stack: Stack) -> Iterator[Celery]:
    with Celery(broker=stack.valkey.url, backend=stack.valkey.url) as app:
        yield app
        app.backend.result_consumer.stop()


@pytest.mark.usefixtures("running_worker")
def test_a_job_from_enqueue_to_its_typed_result(celery: Celery, seed: int) -> None:
    handle = enqueue(
        bars(seed),
        params={"1.batch_size": 2},
        output={"prefix": "typed"},
        metadata={"a": "b"},
        timeout_seconds=20,
        job_id=f"typed-{seed}",
        celery=celery,
        countdown=0.5,
    )
    result = JobResult.model_validate(handle.get(timeout=30))
    assert (result.job_id, result.metadata, len(result.outputs)) == (
        f"typed-{seed}",
        {"a": "b"},
        2,
    )
    # From enqueue, over the countdown, to the start.
    assert 0.5 <= result.timings.queued < 10


@pytest.mark.usefixtures("running_worker")
def test_a_failure_is_our_class(celery: Celery, seed: int) -> None:
    handle = enqueue(bars(seed, steps=0), celery=celery)
    with pytest.raises(InvalidWorkflowError, match="input steps") as caught:
        handle.get(timeout=30)
    assert isinstance(caught.value, JobError)


def test_what_cannot_work_is_not_sent(celery: Celery, seed: int) -> None:
    with pytest.raises(InvalidWorkflowError, match="the workflow is empty"):
        enqueue({}, celery=celery)
    with pytest.raises(InvalidWorkflowError, match="there is no node '9'"):
        enqueue(bars(seed), params={"9.text": "x"}, celery=celery)
    with pytest.raises(InvalidRequestError, match="unknown argument 'output.prefx'"):
        enqueue(bars(seed), output={"prefx": "x"}, celery=celery)
    with pytest.raises(InvalidRequestError, match="'timeout_seconds': found -1"):
        enqueue(bars(seed), timeout_seconds=-1, celery=celery)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"metadata": {"a": 10**5000}}, "an argument"),
        ({"job_id": "\ud800"}, "job_id: found"),
        ({"job_id": 7}, "job_id: found 7, expected a string"),
        ({"params": {"1.seed": {1, 2}}}, "an argument is no JSON"),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(iter(value)),
)
def test_what_cannot_be_a_message_is_not_sent(
    celery: Celery, seed: int, arguments: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(JobError, match=sentence):
        enqueue(bars(seed), celery=celery, **arguments)


def test_a_full_broker_is_named(stack: Stack, seed: int) -> None:
    valkey = Valkey(stack.folder("valkey"))
    with redis.Redis.from_url(valkey.url) as client, Celery(broker=valkey.url) as producer:
        client.config_set("maxmemory", "1mb")
        with pytest.raises(BrokerFullError, match="the job was not enqueued"):
            enqueue(bars(seed), celery=producer)
        assert client.llen("comfyui") == 0
        client.config_set("maxmemory", "0")
        enqueue(bars(seed), celery=producer)
        assert client.llen("comfyui") == 1
    valkey.stop()
