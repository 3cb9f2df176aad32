"""What unit tests share."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, settings

from tests.unit.one_attempt import Scene
from workers.execution import waiting
from workers.ledger import patience

# How fast the machine is decides about no example.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")


@pytest.fixture
def redis_is_asked_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits before Redis is asked again."""
    monkeypatch.setattr(patience, "REDIS_PAUSE", 0.0)


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    """A worker that has just claimed a job, and looks after its prompt without a pause."""
    monkeypatch.setattr(waiting, "POLL_DEAF", 0.0)
    with ThreadPoolExecutor(1) as uploaders:
        yield Scene(uploaders)
