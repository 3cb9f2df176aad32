"""The workers' result backend: what it keeps of a failure, and what it tries again."""

import json
from typing import Any

import pytest
import redis.exceptions
from celery import Celery

from tasks.errors import JobError, NodeFailedError, OutOfMemoryError
from workers.broker.results import PROGRESS, Backend

ATTEMPTS = [{"number": 1, "instance": "i", "prompt_id": "p", "error": "x", "seconds": 1.0}]


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Backend:
    """A backend with a dictionary in Redis' place."""
    app = Celery(broker="memory://", set_as_current=False)
    app.conf.result_backend_always_retry = True
    one = Backend(app=app, url="redis://127.0.0.1:1")
    one.kept = {}
    monkeypatch.setattr(one, "get", one.kept.get)
    monkeypatch.setattr(one, "set", lambda key, meta, **_: one.kept.update({key: meta}))
    # Between two tries.
    monkeypatch.setattr(one, "_sleep", lambda _: None)
    return one


def failure(attempts: list[dict[str, Any]]) -> JobError:
    error = OutOfMemoryError("node 1 (KSampler) ran out of memory")
    error.attempts = attempts
    return error


def stored(backend: Backend) -> dict[str, Any]:
    (meta,) = backend.kept.values()
    return json.loads(meta)


def test_a_failure_is_kept_with_its_attempts(backend: Backend) -> None:
    backend.store_result("job", failure(ATTEMPTS), "FAILURE")
    meta = stored(backend)
    assert meta["status"] == "FAILURE"
    assert meta["attempts"] == ATTEMPTS


def test_a_client_without_our_code_reads_it_as_any_failure(backend: Backend) -> None:
    backend.store_result("job", failure(ATTEMPTS), "FAILURE")
    plain = Celery(broker="memory://", backend="cache+memory://", set_as_current=False).backend
    error = plain.meta_from_decoded(stored(backend))["result"]
    assert type(error).__name__ == "OutOfMemoryError"
    assert str(error) == "node 1 (KSampler) ran out of memory"


def test_a_failure_before_any_attempt_has_none(backend: Backend) -> None:
    backend.store_result("job", NodeFailedError("x"), "FAILURE")
    assert "attempts" not in stored(backend)


@pytest.mark.parametrize("late", [PROGRESS, "RETRY"])
@pytest.mark.parametrize("end", ["SUCCESS", "FAILURE", "REVOKED"])
def test_who_has_lost_a_job_tells_no_more_of_it_once_it_has_ended(
    backend: Backend, end: str, late: str
) -> None:
    backend.store_result("job", {} if end == "SUCCESS" else NodeFailedError("x"), end)
    backend.store_result("job", {} if late == PROGRESS else NodeFailedError("late"), late)
    assert stored(backend)["status"] == end


@pytest.mark.parametrize("late", [PROGRESS, "RETRY"])
def test_a_job_that_goes_on_is_told_of(backend: Backend, late: str) -> None:
    for state in (PROGRESS, "RETRY", late):
        backend.store_result("job", {} if state == PROGRESS else NodeFailedError("x"), state)
        assert stored(backend)["status"] == state


def test_a_result_is_kept_as_it_is(backend: Backend) -> None:
    result = {"attempts": ATTEMPTS, "outputs": []}
    backend.store_result("job", result, "SUCCESS")
    meta = stored(backend)
    assert meta["result"] == result
    assert "attempts" not in meta


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (redis.exceptions.ConnectionError(), True),
        (redis.exceptions.TimeoutError(), True),
        (redis.exceptions.OutOfMemoryError(), True),
        (redis.exceptions.ReadOnlyError(), True),
        # Whoever set it up wrongly may set it right: nobody renders again for that.
        (redis.exceptions.NoPermissionError(), True),
        (redis.exceptions.DataError(), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_passes_is_tried_again(backend: Backend, error: Exception, again: bool) -> None:
    assert bool(backend.exception_safe_to_retry(error)) == again


def test_a_full_redis_is_named(backend: Backend, caplog: pytest.LogCaptureFixture) -> None:
    backend.exception_safe_to_retry(redis.exceptions.OutOfMemoryError())
    assert "Redis is out of memory (maxmemory is reached" in caplog.text


@pytest.mark.parametrize(("state", "tries"), [("SUCCESS", 4), ("RETRY", 4), (PROGRESS, 1)])
def test_progress_is_written_now_or_never_and_all_else_until_it_is_written(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, state: str, tries: int
) -> None:
    tried: list[str] = []
    write = backend.set

    def refused_thrice(key: str, value: str, **_: Any) -> None:
        tried.append(key)
        if len(tried) < 4:
            raise redis.exceptions.ConnectionError
        write(key, value)

    monkeypatch.setattr(backend, "set", refused_thrice)
    result = NodeFailedError("x") if state == "RETRY" else {}
    if state == PROGRESS:
        with pytest.raises(redis.exceptions.ConnectionError):
            backend.store_result("job", result, state)
    else:
        backend.store_result("job", result, state)
        assert stored(backend)["status"] == state
    assert len(tried) == tries
