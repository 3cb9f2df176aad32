"""A worker that is killed: all that it held starts on another one."""

import time
from collections.abc import Callable

import pytest

from sandbox.stack import Stack
from sandbox.valkey import Valkey
from tests.stack import Client, bars

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]


def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def inspected(client: Client, kind: str) -> set[str]:
    """The ids of jobs that are `active`, `reserved` or `scheduled` in any worker."""
    answers = getattr(client.celery.control.inspect(timeout=0.5), kind)() or {}
    jobs = [job for answer in answers.values() for job in answer]
    return {job.get("request", job)["id"] for job in jobs}


def test_what_a_killed_worker_held_starts_on_another(stack: Stack, seed: int) -> None:
    valkey = Valkey(stack.folder("valkey"))
    own = {"CELERY_BROKER_URL": valkey.url, "CELERY_RESULT_BACKEND": valkey.url}
    client = Client({**stack.environment(), **own})
    killed = stack.worker(stack.stand_in().url, {**own, "WORKER_SLOTS": "1"})
    # A postponed job takes no slot: it lets the worker take one more. When its time comes and the
    # slot is taken, it waits in the worker.
    prefetched = client.send(bars(seed), options={"countdown": 4})
    postponed = client.send(bars(seed + 500), options={"countdown": 16})
    running = client.send(bars(seed + 600, seconds=13, steps=130))
    until(lambda: inspected(client, "active") == {running.id})
    until(lambda: inspected(client, "scheduled") == {postponed.id})
    until(lambda: prefetched.id in inspected(client, "reserved"))

    killed.kill()
    began = time.monotonic()
    survivor = stack.worker(stack.stand_in().url, {**own, "WORKER_SLOTS": "3"})
    lost = {prefetched.id, postponed.id, running.id}
    while lost:
        started = {job for job in lost if client.celery.AsyncResult(job).successful()}
        started |= inspected(client, "active")
        for job in lost & started:
            print(f"{job} started {time.monotonic() - began:.1f} s after the kill")
        lost -= started
        assert time.monotonic() - began < 30
    for job in (prefetched, postponed, running):
        assert job.get(timeout=60)["outputs"]
    client.close()
    survivor.stop()
    valkey.stop()
