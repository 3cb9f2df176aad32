"""Messages of RabbitMQ, and the copies that go on in their place; nothing is connected."""

from typing import Any

import amqp
import pytest

from settings.rabbitmq import QUEUES, RETURNED, level_of
from workers.broker.rabbitmq.messages import came_again, copied, is_worn, level_priority


def message(headers: Any = None, redelivered: bool = False, **properties: Any) -> amqp.Message:
    raw = amqp.Message("{}", application_headers=headers, **properties)
    raw.delivery_info = {"redelivered": redelivered}
    return raw


def test_a_copy_says_what_its_original_said() -> None:
    headers = {"id": "7", "task": "t"}
    raw = message(headers, content_type="application/json", correlation_id="7", priority=9)
    copy = copied(raw)
    assert copy.body == raw.body
    assert copy.properties["application_headers"] == headers
    for name in ("content_type", "correlation_id", "priority"):
        assert copy.properties[name] == raw.properties[name]


def test_a_copy_lasts_and_is_not_dropped() -> None:
    copy = copied(message(delivery_mode=1, expiration="500", user_id="producer"))
    assert copy.properties["delivery_mode"] == 2
    assert not {"expiration", "user_id"} & set(copy.properties)


@pytest.mark.parametrize("redelivered", [False, True])
def test_a_copy_of_what_came_again_comes_again(redelivered: bool) -> None:
    copy = copied(message({"id": "7"}, redelivered=redelivered))
    copy.delivery_info = {"redelivered": False}
    assert came_again(copy) is redelivered
    assert copied(copy).properties == copy.properties


@pytest.mark.parametrize(
    ("headers", "worn"),
    [
        (None, False),
        ({"x-delivery-count": 7}, False),
        ({"x-delivery-count": 8}, True),
        ({"x-delivery-count": "many"}, False),
    ],
)
def test_what_was_delivered_often_is_worn(headers: Any, worn: bool) -> None:
    raw = message(headers)
    assert is_worn(raw) is worn
    copy = copied(raw)
    assert not is_worn(copy)


def test_a_level_has_a_priority_that_leads_back_to_it() -> None:
    for level, queue in QUEUES.items():
        assert level_of(level_priority(queue)) == level
    assert level_priority(RETURNED) == level_priority("of others") == level_priority("comfyui")


@pytest.mark.parametrize(
    ("number", "level"),
    [(255, "urgent"), (7, "urgent"), (6, "normal"), (4, "normal"), (3, "batch"), (0, "batch")],
)
def test_numbers_have_a_level(number: int, level: str) -> None:
    assert level_of(number) == level
