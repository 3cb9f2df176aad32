"""What the words for priorities mean on each broker; no broker is asked."""

from typing import Any

import pytest
from celery import Celery
from kombu import Connection
from kombu.transport.redis import PRIORITY_STEPS

from tasks import enqueue
from tasks.errors import InvalidRequestError

WORKFLOW = {"1": {"class_type": "A", "inputs": {}}}
WORDS = ("urgent", "normal", "batch")


class Recording(Celery):  # type: ignore[misc]
    """A producer that keeps what it would send, and can reach nothing."""

    def __init__(self, url: str) -> None:
        super().__init__(broker=url, set_as_current=False)
        self.sent: dict[str, Any] = {}

    def send_task(self, *_: Any, **options: Any) -> None:
        self.sent = options

    def priority(self, priority: Any) -> Any:
        enqueue(WORKFLOW, priority=priority, celery=self)
        return self.sent.get("priority", "not given")


@pytest.fixture(autouse=True)
def _no_connection_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Connection) -> None:
        pytest.fail("a connection was opened")

    monkeypatch.setattr(Connection, "_establish_connection", refuse)


@pytest.mark.parametrize("url", ["redis://h", "rediss://h", "sentinel://h", "redis://a;redis://b"])
def test_on_redis_the_lowest_step_is_the_most_urgent(url: str) -> None:
    producer = Recording(url)
    numbers = [producer.priority(word) for word in WORDS]
    assert numbers == [0, 3, 9]
    # Else two words would mean the same.
    assert set(numbers) <= set(PRIORITY_STEPS)


@pytest.mark.parametrize("url", ["amqp://h", "pyamqp://h", "amqps://h"])
def test_on_rabbitmq_the_highest_is_the_most_urgent(url: str) -> None:
    producer = Recording(url)
    assert [producer.priority(word) for word in WORDS] == [9, 5, 1]


@pytest.mark.parametrize("url", ["redis://h", "amqp://h"])
def test_numbers_are_the_brokers_own(url: str) -> None:
    producer = Recording(url)
    assert [producer.priority(number) for number in (0, 7)] == [0, 7]
    assert producer.priority(None) == "not given"


@pytest.mark.parametrize("word", ["urgnt", "", "URGENT", 1.5, ["batch"]])
def test_other_words_are_refused(word: object) -> None:
    producer = Recording("redis://h")
    with pytest.raises(InvalidRequestError, match="expected 'urgent', 'normal', 'batch' or a num"):
        producer.priority(word)
    assert not producer.sent


def test_a_near_word_is_named() -> None:
    with pytest.raises(InvalidRequestError, match="did you mean 'urgent'"):
        Recording("redis://h").priority("urgnt")
