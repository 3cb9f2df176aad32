"""The workers' result backend: what it tries again, with nothing in Redis' place but its answer.

What it stores, and in the place of what: `tests/integration/test_results.py`.
"""

import json
from collections.abc import Callable
from typing import Any

import pytest
import redis.exceptions
from celery import Celery
from celery.exceptions import BackendStoreError

from tasks.errors import NodeFailedError
from workers.broker.results import PROGRESS, Backend


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Backend:
    """A backend that can reach nothing."""
    app = Celery(broker="memory://", set_as_current=False)
    app.conf.result_backend_always_retry = True
    one = Backend(app=app, url="redis://127.0.0.1:1")
    # Between two tries.
    monkeypatch.setattr(one, "_sleep", lambda _: None)
    return one


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

    def refused_thrice(_: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        tried.append(json.loads(arguments[3])["status"])
        if len(tried) < 4:
            raise redis.exceptions.ConnectionError

    monkeypatch.setattr(backend, "ensure", refused_thrice)
    result = NodeFailedError("x") if state == "RETRY" else {}
    if state == PROGRESS:
        with pytest.raises(redis.exceptions.ConnectionError):
            backend.store_result("job", result, state)
    else:
        backend.store_result("job", result, state)
    assert tried == [state] * tries


@pytest.mark.parametrize("state", ["SUCCESS", PROGRESS])
def test_a_result_that_no_redis_can_hold_is_not_sent(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    monkeypatch.setattr(backend, "_MAX_STR_VALUE_SIZE", 1000)
    monkeypatch.setattr(backend, "ensure", lambda *_: pytest.fail("it was sent"))
    with pytest.raises(BackendStoreError, match="too large for Redis") as caught:
        backend.store_result("job", {"x": "y" * 1000}, state)
    assert (caught.value.task_id, caught.value.state) == ("job", state)
