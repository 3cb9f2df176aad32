"""What unit tests share."""

import pytest
from hypothesis import HealthCheck, settings

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
