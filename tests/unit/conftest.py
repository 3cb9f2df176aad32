"""What unit tests share."""

import pytest

from workers.ledger import patience


@pytest.fixture
def redis_is_asked_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits before Redis is asked again."""
    monkeypatch.setattr(patience, "REDIS_PAUSE", 0.0)
