"""A ComfyUI server that is not there: its worker takes nothing, and the others never notice."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from socket import gethostname

import pytest
import redis

from sandbox.processes import ChildProcess
from sandbox.stack import Stack, StandIn
from sandbox.valkey import Valkey
from tests.stack import Client, bars

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]

OPENED = "no jobs are taken until"
CLOSED = "jobs are taken"


def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class Fleet:
    """Workers on a broker of their own, which may be restarted."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self.valkey = Valkey(stack.folder("valkey"))
        self._own = {
            "CELERY_BROKER_URL": self.valkey.url,
            "CELERY_RESULT_BACKEND": self.valkey.url,
        }
        self._processes: list[ChildProcess | StandIn] = []
        self.connect()

    def connect(self) -> None:
        """Have a client that knows nothing of the broker before."""
        self.client = Client({**self._stack.environment(), **self._own})

    def server(self) -> StandIn:
        server = self._stack.stand_in()
        self._processes.append(server)
        return server

    def worker(self, server: StandIn) -> ChildProcess:
        worker = self._stack.worker(server.url, self._own)
        self._processes.append(worker)
        return worker

    def consumes(self, server: StandIn) -> bool:
        """Whether the worker of this server takes jobs; it is asked over its own event loop."""
        name = f"127.0.0.1-{server.port}@{gethostname()}"
        answers: list[bool] = []
        # Those in the pool may be of a broker that has been restarted since.
        with self.client.celery.connection_for_write() as connection:
            ask = self.client.celery.control.inspect([name], 2.0, connection=connection, limit=1)
            while not answers:
                answers += map(bool, (ask.active_queues() or {}).values())
        return answers[0]

    def waiting(self) -> int:
        """How many jobs nobody has taken."""
        with redis.Redis.from_url(self.valkey.url) as broker:
            return int(broker.llen("comfyui"))  # type: ignore[arg-type]

    def close(self) -> None:
        with ExitStack() as closing:
            closing.callback(self.valkey.stop)
            for process in self._processes:
                closing.callback(process.stop)
            closing.callback(self.client.close)


@pytest.fixture
def fleet(stack: Stack) -> Iterator[Fleet]:
    one = Fleet(stack)
    yield one
    one.close()


def leaves_in_peace(worker: ChildProcess) -> None:
    """The worker's end, and that it had no trouble with its circuit."""
    began = time.monotonic()
    worker.stop()
    assert worker.returncode == 0
    # Nothing is waited for: not the grace of 15 s, either.
    assert time.monotonic() - began < 10.0
    assert "Traceback" not in worker.log.read_text()


def test_a_worker_waits_for_its_comfyui(fleet: Fleet, seed: int) -> None:
    server = fleet.server()
    server.kill()
    worker = fleet.worker(server)
    job = fleet.client.send(bars(seed))
    assert not fleet.consumes(server)
    until(lambda: fleet.waiting() == 1)
    server.start()
    result = job.get(timeout=30)
    assert [attempt["number"] for attempt in result["attempts"]] == [1]
    assert server.executions() == {result["prompt_id"]: 1}
    assert fleet.consumes(server)
    assert worker.log.read_text().count(OPENED) == 1
    leaves_in_peace(worker)


def test_a_worker_that_waits_can_leave(fleet: Fleet) -> None:
    server = fleet.server()
    server.kill()
    worker = fleet.worker(server)
    until(lambda: OPENED in worker.log.read_text())
    leaves_in_peace(worker)


@pytest.mark.parametrize("busy", [False, True])
def test_the_healthy_worker_does_what_the_other_cannot(fleet: Fleet, seed: int, busy: bool) -> None:
    ill, healthy = fleet.server(), fleet.server()
    worker = fleet.worker(ill)
    running = []
    if busy:
        running = [fleet.client.send(bars(seed + 100, seconds=20.0, steps=200))]
        until(lambda: len(ill.executions()) == 1)
    fleet.worker(healthy)
    until(lambda: fleet.consumes(ill) and fleet.consumes(healthy))

    ill.kill()
    until(lambda: not fleet.consumes(ill))
    for job in running:
        job.revoke()
    began = time.monotonic()
    jobs = [fleet.client.send(bars(seed + 200 + n)) for n in range(6)]
    results = [job.get(timeout=30) for job in jobs]
    assert time.monotonic() - began < 10.0
    assert {result["instance"] for result in results} == {healthy.url}
    assert {len(result["attempts"]) for result in results} == {1}
    assert worker.returncode is None

    ill.start()
    until(lambda: fleet.consumes(ill))
    # More than one worker has slots for, and longer than the other needs to take its share.
    jobs = [fleet.client.send(bars(seed + 300 + n, seconds=0.5)) for n in range(6)]
    results = [job.get(timeout=30) for job in jobs]
    assert {result["instance"] for result in results} == {ill.url, healthy.url}
    assert {len(result["attempts"]) for result in results} == {1}


@pytest.mark.parametrize("server_comes_first", [False, True])
def test_the_broker_is_restarted_while_the_server_is_down(
    fleet: Fleet, seed: int, server_comes_first: bool
) -> None:
    server = fleet.server()
    worker = fleet.worker(server)
    until(lambda: fleet.consumes(server))
    server.kill()
    until(lambda: OPENED in worker.log.read_text())
    # At once: the worker may still be waiting for a reply to its last question.
    before = fleet.client.send(bars(seed)).id
    until(lambda: not fleet.consumes(server))
    until(lambda: fleet.waiting() == 1)
    fleet.client.close()

    fleet.valkey.stop()
    if server_comes_first:
        closed = worker.log.read_text().count(CLOSED)
        server.start()
        until(lambda: worker.log.read_text().count(CLOSED) > closed)
    fleet.valkey.start()
    fleet.connect()
    if not server_comes_first:
        assert not fleet.consumes(server)
        assert fleet.waiting() == 1
        server.start()

    result = fleet.client.celery.AsyncResult(before).get(timeout=30)
    assert len(result["attempts"]) == 1
    assert server.executions() == {result["prompt_id"]: 1}
    assert fleet.client.run(bars(seed + 500))["outputs"]
    assert fleet.consumes(server)
