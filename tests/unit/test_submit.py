"""What `comfyfleet submit` says when jobs cannot be enqueued."""

import pytest
from kombu.exceptions import OperationalError
from redis.exceptions import ConnectionError as RedisConnectionError

from cli.errors import CommandError
from cli.submit import enqueuing
from tasks.errors import BrokerFullError


@pytest.mark.parametrize(
    "error",
    [OperationalError("x"), RuntimeError("x"), OSError("x"), RedisConnectionError("x")],
    ids=lambda error: type(error).__module__,
)
def test_a_broker_that_is_away_is_named(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://:secret@nowhere/0")
    error.add_note("1 of the 3 jobs were enqueued")
    with pytest.raises(CommandError) as caught, enqueuing():
        raise error
    message = str(caught.value)
    assert message.startswith(f"broker or result backend did not answer ({type(error).__name__})")
    assert "CELERY_BROKER_URL is redis://:********@nowhere/0" in message
    assert message.endswith("; 1 of the 3 jobs were enqueued")


def test_our_own_sentence_stays() -> None:
    with pytest.raises(CommandError) as caught, enqueuing():
        raise BrokerFullError("Redis is full")
    assert str(caught.value) == "Redis is full"


def test_who_interrupts_it_is_told_what_was_enqueued(capsys: pytest.CaptureFixture[str]) -> None:
    interruption = KeyboardInterrupt()
    interruption.add_note("1 of the 3 jobs were enqueued")
    with pytest.raises(KeyboardInterrupt), enqueuing():
        raise interruption
    assert capsys.readouterr().err == "comfyfleet: 1 of the 3 jobs were enqueued\n"
