"""What the workers' result backend stores on a real Redis, and in the place of what."""

import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
import redis.exceptions
from celery import Celery
from celery.result import AsyncResult

from sandbox.stack import Stack
from sandbox.valkey import Valkey
from tasks.errors import JobError, NodeFailedError, OutOfMemoryError
from workers.broker.results import PROGRESS, Backend

pytestmark = pytest.mark.integration

ATTEMPTS = [{"number": 1, "instance": "i", "prompt_id": "p", "error": "x", "seconds": 1.0}]
ENDS = ("SUCCESS", "FAILURE", "REVOKED")
STATES = (PROGRESS, "RETRY", *ENDS)

Make = Callable[..., Backend]


@pytest.fixture
def make(stack: Stack) -> Iterator[Make]:
    """Makes a worker's backend, with options of Celery."""
    made: list[tuple[Celery, Backend]] = []

    def one(url: str = stack.valkey.url, **options: Any) -> Backend:
        app = Celery(broker="memory://", set_as_current=False)
        app.conf.update(result_backend_always_retry=True, **options)
        made.append((app, Backend(app=app, url=url)))
        return made[-1][1]

    yield one
    for app, backend in made:
        backend.client.close()
        app.close()


@pytest.fixture
def backend(make: Make) -> Backend:
    return make()


@pytest.fixture
def job() -> str:
    return str(uuid.uuid4())


def failure(attempts: list[dict[str, Any]]) -> JobError:
    error = OutOfMemoryError("node 1 (KSampler) ran out of memory")
    error.attempts = attempts
    return error


def result_of(state: str, text: str = "x") -> Any:
    return {"value": text} if state in (PROGRESS, "SUCCESS") else NodeFailedError(text)


def raw(backend: Backend, job: str) -> Any:
    return backend.client.get(backend.get_key_for_task(job))


def stored(backend: Backend, job: str) -> dict[str, Any]:
    return json.loads(raw(backend, job))


# What is kept


def test_a_failure_is_kept_with_its_attempts(backend: Backend, job: str) -> None:
    backend.store_result(job, failure(ATTEMPTS), "FAILURE")
    meta = stored(backend, job)
    assert (meta["status"], meta["task_id"]) == ("FAILURE", job)
    assert meta["attempts"] == ATTEMPTS


def test_a_client_without_our_code_reads_it_as_any_failure(
    backend: Backend, stack: Stack, job: str
) -> None:
    backend.store_result(job, failure(ATTEMPTS), "FAILURE")
    with Celery(backend=stack.valkey.url, set_as_current=False) as plain:
        handle = AsyncResult(job, app=plain)
        error = handle.result
        assert handle.state == "FAILURE"
        plain.backend.client.close()
    assert type(error).__name__ == "OutOfMemoryError"
    assert str(error) == "node 1 (KSampler) ran out of memory"


def test_a_failure_before_any_attempt_has_none(backend: Backend, job: str) -> None:
    backend.store_result(job, NodeFailedError("x"), "FAILURE")
    assert "attempts" not in stored(backend, job)


def test_a_result_is_kept_as_it_is(backend: Backend, job: str) -> None:
    result = {"attempts": ATTEMPTS, "outputs": [], "text": "ü \ud800", "n": 10**30, "x": 1e-9}
    assert backend.store_result(job, result, "SUCCESS") == result
    meta = stored(backend, job)
    assert meta["result"] == result
    assert "attempts" not in meta


def test_a_failure_has_its_traceback(backend: Backend, job: str) -> None:
    backend.store_result(job, NodeFailedError("x"), "FAILURE", "a traceback")
    assert stored(backend, job)["traceback"] == "a traceback"


# In the place of what


@pytest.mark.parametrize("late", [PROGRESS, "RETRY", "REVOKED"])
@pytest.mark.parametrize("end", ENDS)
def test_who_has_lost_a_job_tells_no_more_of_it_once_it_has_ended(
    backend: Backend, job: str, end: str, late: str
) -> None:
    backend.store_result(job, result_of(end), end)
    before = raw(backend, job)
    backend.store_result(job, result_of(late, "late"), late)
    assert raw(backend, job) == before


@pytest.mark.parametrize("late", [PROGRESS, "RETRY"])
def test_a_job_that_goes_on_is_told_of(backend: Backend, job: str, late: str) -> None:
    for state in (PROGRESS, "RETRY", late):
        backend.store_result(job, result_of(state), state)
        assert stored(backend, job)["status"] == state


@pytest.mark.parametrize("late", STATES)
def test_a_success_is_never_replaced(backend: Backend, job: str, late: str) -> None:
    backend.store_result(job, {"value": "first"}, "SUCCESS")
    before = raw(backend, job)
    backend.store_result(job, result_of(late, "second"), late)
    assert raw(backend, job) == before


@pytest.mark.parametrize("end", ["SUCCESS", "FAILURE"])
@pytest.mark.parametrize("before", [None, PROGRESS, "RETRY", "FAILURE", "REVOKED"])
def test_how_a_job_has_ended_replaces_all_but_a_success(
    backend: Backend, job: str, before: str | None, end: str
) -> None:
    if before:
        backend.store_result(job, result_of(before), before)
    backend.store_result(job, result_of(end, "the end"), end)
    assert stored(backend, job)["status"] == end
    assert "the end" in json.dumps(stored(backend, job)["result"])


@pytest.mark.parametrize(
    "garbage",
    ["{{{", "", "[]", "5", "null", "{}", '{"status": 5}', "[" * 5000, b"\xff\xfe"],
    ids=lambda garbage: ascii(garbage)[:12],
)
@pytest.mark.parametrize("state", STATES)
def test_what_is_no_result_is_replaced(
    backend: Backend, job: str, garbage: str | bytes, state: str
) -> None:
    backend.client.set(backend.get_key_for_task(job), garbage)
    backend.store_result(job, result_of(state), state)
    assert stored(backend, job)["status"] == state


# For how long


def test_a_result_expires(make: Make, job: str) -> None:
    backend = make(result_expires=100)
    for state in (PROGRESS, "SUCCESS"):
        backend.store_result(job, result_of(state), state)
        assert 95 <= backend.client.ttl(backend.get_key_for_task(job)) <= 100


def test_what_was_refused_lengthens_no_life(make: Make, job: str) -> None:
    make(result_expires=100).store_result(job, {}, "SUCCESS")
    backend = make(result_expires=10_000)
    backend.store_result(job, NodeFailedError("late"), "FAILURE")
    assert backend.client.ttl(backend.get_key_for_task(job)) <= 100


@pytest.mark.parametrize("never", [None, 0])
def test_without_an_expiry_a_result_stays(make: Make, job: str, never: int | None) -> None:
    backend = make(result_expires=never)
    backend.store_result(job, {}, "SUCCESS")
    key = backend.get_key_for_task(job)
    assert backend.client.ttl(key) == -1
    backend.client.delete(key)


def test_failures_may_stay_for_another_time(make: Make, job: str) -> None:
    backend = make(result_expires=100, result_failure_expires=5000)
    backend.store_result(job, NodeFailedError("x"), "FAILURE")
    assert 100 < backend.client.ttl(backend.get_key_for_task(job)) <= 5000
    backend.store_result(job, {}, "SUCCESS")
    assert backend.client.ttl(backend.get_key_for_task(job)) <= 100


# Who waits for it


def test_who_waits_hears_all_that_is_stored_and_nothing_else(backend: Backend, job: str) -> None:
    key = backend.get_key_for_task(job)
    with backend.client.pubsub(ignore_subscribe_messages=True) as ear:
        ear.subscribe(key)
        # Until the server has confirmed it.
        ear.get_message(timeout=10)
        metas = []
        for state in (PROGRESS, "FAILURE", PROGRESS, "SUCCESS", "FAILURE", PROGRESS):
            backend.store_result(job, result_of(state), state)
            metas.append(stored(backend, job))
        backend.client.publish(key, '"the last"')
        heard = []
        while "the last" not in heard:
            if message := ear.get_message(timeout=10):
                heard.append(json.loads(message["data"]))
    assert heard == [metas[0], metas[1], metas[3], "the last"]


def test_a_producer_that_waits_gets_it(backend: Backend, stack: Stack, job: str) -> None:
    with Celery(backend=stack.valkey.url, set_as_current=False) as plain:
        handle = AsyncResult(job, app=plain)
        plain.backend.result_consumer.consume_from(job)
        backend.store_result(job, {"step": 1}, PROGRESS)
        backend.store_result(job, {"a": "b"}, "SUCCESS")
        assert handle.get(timeout=10) == {"a": "b"}
        plain.backend.result_consumer.stop()
        plain.backend.client.close()


# A server that is full


def test_a_result_waits_until_there_is_room_for_it(
    make: Make,
    stack: Stack,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    job: str,
) -> None:
    valkey = Valkey(stack.folder("valkey"))
    backend = make(valkey.url)
    backend.client.config_set("maxmemory", 1)
    # Progress is worth no waiting.
    with pytest.raises(redis.exceptions.ResponseError):
        backend.store_result(job, {}, PROGRESS)
    assert raw(backend, job) is None
    pauses = []

    def wait(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            backend.client.config_set("maxmemory", 0)

    monkeypatch.setattr(backend, "_sleep", wait)
    backend.store_result(job, {"a": "b"}, "SUCCESS")
    assert stored(backend, job)["result"] == {"a": "b"}
    assert len(pauses) == 3
    assert caplog.text.count("Redis is out of memory (maxmemory is reached") == 3
    valkey.stop()
