"""Receivers are told how jobs end, signed, and whatever becomes of them no job waits."""

import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from standardwebhooks import Webhook

from sandbox.processes import ChildProcess, free_ports
from tasks import enqueue_batch
from tests.conftest import WEBHOOK_SECRET
from tests.stack import Client, Stack, bars
from workers.ledger import Ledger
from workers.ledger.outbox import Waiting

from .hosts import Asked, Host

pytestmark = [
    pytest.mark.integration,
    pytest.mark.usefixtures("running_worker"),
    # Celery's own backend, when a batch is saved.
    pytest.mark.filterwarnings("ignore:Call to deprecated setex"),
]


@pytest.fixture(scope="module")
def receiver() -> Iterator[Host]:
    with Host(tls=False) as host:
        yield host


Hear = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def path(receiver: Host) -> str:
    """Where the receiver takes everything."""
    one = f"/{uuid.uuid4()}"
    receiver.paths[one] = lambda asked: asked.answer()
    return one


@pytest.fixture
def hear(receiver: Host, path: str, running_worker: ChildProcess) -> Hear:
    """So many verified messages, in the order in which they came."""

    def heard() -> list[Asked]:
        return [asked for asked in receiver.asked if asked.path == path]

    def hear(count: int) -> list[dict[str, Any]]:
        running_worker.wait_until(lambda: len(heard()) >= count and all(a.body for a in heard()))
        return [Webhook(WEBHOOK_SECRET).verify(one.body, one.headers) for one in heard()]

    return hear


def test_a_success_is_told_with_the_result(
    client: Client, receiver: Host, path: str, hear: Hear, seed: int
) -> None:
    webhook = {
        "url": receiver.url(path, "127.0.0.1"),
        "events": ["job.started", "job.succeeded"],
    }
    output = {"presign_seconds": 60}
    handle = client.send(bars(seed), webhook=webhook, metadata={"shot": "7"}, output=output)
    result = handle.get(timeout=30)
    started, ended = sorted(hear(2), key=lambda one: one["timestamp"])
    assert started["type"] == "job.started"
    assert started["data"] == {
        "job_id": handle.id,
        "state": "started",
        "instance": result["instance"],
        "metadata": {"shot": "7"},
    }
    assert ended["type"] == "job.succeeded"
    assert ended["data"] == {
        "job_id": handle.id,
        "state": "succeeded",
        "result": result,
        "metadata": {"shot": "7"},
    }


def test_a_failure_is_told_with_its_reason(
    client: Client, receiver: Host, path: str, hear: Hear, seed: int
) -> None:
    webhook = {"url": receiver.url(path, "127.0.0.1")}
    error = client.failure(bars(seed, mode="error"), webhook=webhook)
    (told,) = hear(1)
    assert told["type"] == "job.failed"
    assert told["data"]["error"]["type"] == type(error).__name__ == "NodeFailedError"
    assert told["data"]["error"]["message"] == str(error)
    assert len(told["data"]["error"]["attempts"]) == 1


def test_each_job_of_a_batch_tells_of_itself(
    client: Client, receiver: Host, path: str, hear: Hear, seed: int
) -> None:
    webhook = {"url": receiver.url(path, "127.0.0.1")}
    rows = [{"1.seed": seed * 100 + number} for number in range(2)]
    batch = enqueue_batch(bars(seed), rows, webhook=webhook, celery=client.celery)
    told = hear(2)
    assert {one["data"]["job_id"] for one in told} == set(batch.job_ids)
    assert {one["data"]["metadata"]["row"] for one in told} == {"1", "2"}


def test_a_request_that_is_refused_is_told_of(
    client: Client, receiver: Host, path: str, hear: Hear, seed: int
) -> None:
    webhook = {"url": receiver.url(path, "127.0.0.1")}
    error = client.failure(bars(seed), webhook=webhook, parms={}, metadata={"a": "b", "c": 1})
    (told,) = hear(1)
    assert told["data"]["error"]["message"] == str(error)
    assert told["data"]["metadata"] == {"a": "b"}


def test_a_job_that_is_cancelled_or_too_late_is_told_of(
    client: Client, receiver: Host, path: str, hear: Hear, seed: int
) -> None:
    webhook = {"url": receiver.url(path, "127.0.0.1")}
    late = client.send(bars(seed), webhook=webhook, options={"expires": -1})
    (told,) = hear(1)
    assert told["type"] == "job.cancelled"
    assert told["data"]["job_id"] == late.id
    assert told["data"]["error"]["type"] == "JobExpiredError"
    running = client.send(bars(seed, seconds=20, steps=200), webhook=webhook)
    while running.state != "PROGRESS":
        time.sleep(0.02)
    running.revoke(terminate=True)
    told = hear(2)[1]
    assert (told["data"]["job_id"], told["data"]["error"]["type"]) == (
        running.id,
        "JobCancelledError",
    )


def test_a_receiver_that_is_away_or_silent_holds_up_neither_jobs_nor_others(
    client: Client, receiver: Host, path: str, hear: Hear, seed: int
) -> None:
    (nobody,) = free_ports(1)
    with Host(tls=False, speaks=False) as silent:
        dead = [f"http://127.0.0.1:{nobody}/", *[silent.url("/", "127.0.0.1")] * 6]
        jobs = [
            client.send(bars(seed * 100 + n, seconds=0.05), webhook={"url": url})
            for n, url in enumerate([*dead, receiver.url(path, "127.0.0.1")])
        ]
        for job in jobs:
            job.get(timeout=30)
        began = time.monotonic()
        (told,) = hear(1)
        # A try at a receiver that says nothing takes ten.
        assert time.monotonic() - began < 6
    assert told["data"]["job_id"] == jobs[-1].id


def test_what_failed_once_comes_again_under_the_same_id(
    client: Client,
    receiver: Host,
    path: str,
    seed: int,
    *,
    running_worker: ChildProcess,
    stack: Stack,
) -> None:
    answers = iter(["500 X", "302 Found"])

    def answer(asked: Asked) -> None:
        asked.answer(status=next(answers, "204 No Content"), Location="/elsewhere")

    receiver.paths[path] = answer
    handle = client.send(bars(seed), webhook={"url": receiver.url(path, "127.0.0.1")})
    handle.get(timeout=30)

    def heard() -> list[Asked]:
        return [asked for asked in receiver.asked if asked.path == path]

    with Ledger(stack.valkey.url) as ledger:

        def waiting() -> list[Waiting]:
            return [one for one in ledger.outbox.all() if one.job_id == handle.id]

        def hurried() -> bool:
            for one in waiting():
                # It comes by itself, but not as soon.
                if one.error:
                    ledger.outbox.retry(one.id)
            return len(heard()) == 3

        running_worker.wait_until(hurried)
        running_worker.wait_until(lambda: not waiting())
    assert len({asked.headers["webhook-id"] for asked in heard()}) == 1
    for asked in heard():
        Webhook(WEBHOOK_SECRET).verify(asked.body, asked.headers)
