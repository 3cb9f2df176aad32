"""What a worker on RabbitMQ tells by Celery's events."""

from typing import Any

import pytest
from celery import Celery
from celery.events.dispatcher import EventDispatcher
from celery.worker.heartbeat import Heart

from workers.broker.rabbitmq.events import Dispatcher


def test_the_loop_tries_once_to_give_a_sign_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []
    monkeypatch.setattr(EventDispatcher, "send", lambda _, *a, **options: sent.append((a, options)))
    app = Celery(set_as_current=False)
    dispatcher = Dispatcher(app=app, enabled=False, hostname="w")
    Heart(timer=None, eventer=dispatcher)._send("worker-heartbeat")
    ((event, options),) = sent
    assert (event, options["retry"]) == (("worker-heartbeat",), False)
