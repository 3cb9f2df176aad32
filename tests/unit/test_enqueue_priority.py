"""What the words for priorities mean on each broker; no broker is asked."""

from typing import Any

import pytest
from amqp.exceptions import MessageNacked, PreconditionFailed
from celery import Celery
from celery.signals import before_task_publish
from kombu import Connection
from kombu.transport.redis import PRIORITY_STEPS

from tasks import TASK_NAME, enqueue
from tasks.errors import BrokerFullError, InvalidRequestError

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


@pytest.mark.parametrize(
    ("priority", "queue"),
    [
        ("urgent", "comfyui.urgent"),
        (8, "comfyui.urgent"),
        ("normal", "comfyui"),
        (None, "comfyui"),
        ("batch", "comfyui.batch"),
        (0, "comfyui.batch"),
    ],
)
def test_on_rabbitmq_each_level_has_a_queue(priority: Any, queue: str) -> None:
    producer = Recording("amqp://h")
    producer.priority(priority)
    assert producer.sent["queue"] == queue
    # Else whoever waits for the confirmation may wait for ever.
    assert producer.sent["confirm_timeout"] > 0


def test_on_rabbitmq_the_producers_own_queue_is_used() -> None:
    producer = Recording("amqp://h")
    enqueue(WORKFLOW, priority="urgent", queue="other", celery=producer)
    assert (producer.sent["queue"], producer.sent["priority"]) == ("other", 9)


def test_on_redis_all_levels_have_one_queue() -> None:
    producer = Recording("redis://h")
    producer.priority("urgent")
    assert (producer.sent["queue"], "confirm_timeout" in producer.sent) == ("comfyui", False)


class Refusing(Recording):
    """A producer whose broker answers with errors first."""

    def __init__(self, *errors: Exception) -> None:
        super().__init__("amqp://h")
        self.errors = list(errors)

    def send_task(self, *args: Any, **options: Any) -> None:
        if self.errors:
            raise self.errors.pop(0)
        super().send_task(*args, **options)


def test_a_queue_that_others_have_declared_otherwise_is_used_as_it_is() -> None:
    producer = Refusing(PreconditionFailed("inequivalent arg 'x-queue-type'"))
    enqueue(WORKFLOW, celery=producer)
    assert producer.sent["declare"] == []


def test_a_job_that_rabbitmq_refuses_was_not_enqueued() -> None:
    with pytest.raises(BrokerFullError, match="was not enqueued; enqueue again later"):
        enqueue(WORKFLOW, celery=Refusing(MessageNacked()))


def test_other_errors_are_the_producers_to_handle() -> None:
    with pytest.raises(LookupError):
        enqueue(WORKFLOW, celery=Refusing(LookupError()))


def test_rabbitmq_is_not_told_when_to_drop_a_job() -> None:
    properties = {"expiration": 5, "correlation_id": "7"}
    before_task_publish.send(sender=TASK_NAME, properties=properties)
    assert properties == {"correlation_id": "7"}
    others = {"expiration": 5}
    before_task_publish.send(sender="another.task", properties=others)
    assert others == {"expiration": 5}


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
