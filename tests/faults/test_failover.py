"""Redis fails over to its replica: no job is lost, and none is executed again."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import redis
from celery.result import AsyncResult

from sandbox.sentinel import MASTER_NAME, WatchedPair
from sandbox.stack import Stack, StandIn
from settings.redis_urls import for_our_client
from tests.command_line import Comfyfleet
from tests.faults.scenes import errors, eventually, executing, pending
from tests.stack import Client, bars
from workers.ledger.connection import connect

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]


class Watched:
    """A worker and a bare producer on a pair of servers that a sentinel watches."""

    def __init__(self, stack: Stack, undo: ExitStack) -> None:
        self.pair = WatchedPair(stack.folder("pair"))
        undo.callback(self.pair.stop)
        self.server: StandIn = stack.stand_in(step_seconds=0.01)
        undo.callback(self.server.stop)
        self.environment = {**stack.environment(self.server.url), **self.pair.environment}
        # Whoever still has a job when its test is over holds nobody up.
        self.worker = stack.worker(
            self.server.url, {**self.pair.environment, "SHUTDOWN_GRACE_SECONDS": "0"}
        )
        undo.callback(self.worker.stop)
        self.client = Client(self.environment)
        undo.callback(self.client.close)
        sentinel = {"master_name": MASTER_NAME, "socket_timeout": 2}
        self.client.celery.conf.update(
            broker_transport_options=sentinel,
            result_backend_transport_options=sentinel,
            redis_socket_timeout=2,
        )

    def send(self, count: int) -> list[str]:
        """Enqueue jobs of a second, and wait until one executes and one is taken ahead."""
        sent = [self.client.send(bars(n, seconds=1, steps=10)).id for n in range(count)]
        executing(self.server)
        with redis.Redis.from_url(self.pair.master.url) as broker:
            eventually(lambda: int(broker.llen("comfyui")) <= count - 2)  # type: ignore[arg-type]
            eventually(lambda: len(self.server.executions()) + len(pending(self.server)) >= 2)
            # What the replica has not seen would be lost, and is another matter.
            broker.set("in-step", 1)
            assert broker.wait(1, 5000)
        return sent

    def fail_over(self, former: object) -> None:
        """Wait until another server takes writes."""
        self.pair.give_up_after(1)
        eventually(lambda: self._has_failed_over(former))
        self.pair.give_up_after(60)

    def _has_failed_over(self, former: object) -> bool:
        if self.pair.master is former:
            return False
        with redis.Redis.from_url(self.pair.master.url) as master:
            return bool(master.role()[0] == b"master")

    def ended(self, job_id: str) -> AsyncResult | None:
        """A job, once it has ended; the backend may be away for a while."""
        try:
            job = self.client.celery.AsyncResult(job_id)
            return job if job.ready() else None
        except redis.RedisError:
            return None

    def executions_are_those_of(self, jobs: list[str]) -> None:
        results = [eventually(lambda one=one: self.ended(one), 60).result for one in jobs]
        assert [errors(result) for result in results] == [[None]] * len(jobs)
        assert self.server.executions() == {result["prompt_id"]: 1 for result in results}
        url = for_our_client(self.pair.url, master_name=MASTER_NAME)
        with connect(url) as ledger:
            eventually(lambda: not ledger.exists("comfyui", "comfyfleet:unacked"))
        assert self.worker.returncode is None


@pytest.fixture
def watched(stack: Stack) -> Iterator[Watched]:
    with ExitStack() as undo:
        yield Watched(stack, undo)


def test_a_master_that_is_killed(watched: Watched) -> None:
    jobs = watched.send(4)
    former = watched.pair.master
    former.kill()
    watched.fail_over(former)
    # The former master comes back as a replica, and nobody takes it for the master.
    former.start()
    watched.executions_are_those_of(jobs)
    told = Comfyfleet(watched.environment)("result", jobs[0])
    assert told.code == 0, told.stderr


def test_a_master_that_is_frozen(watched: Watched) -> None:
    jobs = watched.send(3)
    former = watched.pair.master
    former.process.pause()
    watched.fail_over(former)
    # What it would still answer comes too late for anybody: it is not thawed before the end.
    watched.executions_are_those_of(jobs)
