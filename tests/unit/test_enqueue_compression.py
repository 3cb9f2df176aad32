"""Which jobs travel compressed, by what a broker in this process gets."""

import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery
from kombu import Queue
from kombu.message import Message

from tasks import enqueue

WORKFLOW = {"1": {"class_type": "A", "inputs": {}}}
Send = Callable[..., Message]


@pytest.fixture
def send() -> Iterator[Send]:
    """Enqueue a job and take its message off the queue."""
    with Celery(broker="memory://", set_as_current=False) as app:

        def one(**options: Any) -> Message:
            name = f"q-{uuid.uuid4()}"
            enqueue(WORKFLOW, celery=app, queue=name, **options)
            with app.connection_for_read() as connection:
                queue = Queue(name, durable=True)(connection.default_channel)
                message = queue.get(no_ack=True, accept=["json"])
                queue.delete()
            assert message is not None
            return message

        yield one


def large(size: int) -> dict[str, Any]:
    """Arguments that have so many bytes as JSON, with those of the workflow."""
    without = len(json.dumps({"workflow": WORKFLOW, "metadata": {"a": ""}}))
    return {"metadata": {"a": "x" * (size - without)}}


def arguments(message: Message) -> dict[str, Any]:
    _, kwargs, _ = message.payload
    return kwargs


@pytest.mark.parametrize("size", [2048, 100_000])
def test_a_large_job_travels_compressed(send: Send, size: int) -> None:
    message = send(**large(size))
    assert message.headers["compression"] == "application/x-gzip"
    assert arguments(message) == {"workflow": WORKFLOW, **large(size)}
    plain = send(**large(size), compression=None)
    assert len(plain.body) > size


@pytest.mark.parametrize("size", [100, 2047])
def test_a_small_one_does_not(send: Send, size: int) -> None:
    message = send(**large(size))
    assert "compression" not in message.headers
    assert arguments(message) == {"workflow": WORKFLOW, **large(size)}


@pytest.mark.parametrize("size", [100, 100_000])
@pytest.mark.parametrize(
    ("asked", "used"),
    [("bzip2", "application/x-bz2"), ("zlib", "application/x-gzip"), (None, None)],
)
def test_who_asks_for_a_compression_gets_that_one(
    send: Send, asked: str | None, used: str | None, size: int
) -> None:
    message = send(**large(size), compression=asked)
    assert message.headers.get("compression") == used
    assert arguments(message) == {"workflow": WORKFLOW, **large(size)}


def test_other_headers_stay(send: Send) -> None:
    message = send(**large(5000), headers={"mine": "x"}, job_id="a job")
    assert (message.headers["mine"], message.headers["id"]) == ("x", "a job")
    assert message.headers["enqueued_at"] > 0
