"""What is urgent is next, however much waits."""

from collections.abc import Iterator

import pytest
import redis

from sandbox.stack import Stack
from sandbox.valkey import Valkey
from tasks import enqueue
from tests.stack import Client, bars
from workers.execution.job import prompt_id

pytestmark = pytest.mark.integration

WAITING = 1000
# More than a thousand jobs take to be sent, on whatever machine; then these are revoked.
LONG_SECONDS = 300.0


@pytest.fixture
def valkey(stack: Stack) -> Iterator[Valkey]:
    one = Valkey(stack.folder("valkey"))
    yield one
    one.stop()


def test_with_a_thousand_waiting_the_urgent_one_is_next_on_every_worker(
    stack: Stack, valkey: Valkey, seed: int
) -> None:
    own = {"CELERY_BROKER_URL": valkey.url, "CELERY_RESULT_BACKEND": valkey.url}
    # Kombu's defaults: it knows nothing of ours.
    client = Client({**stack.environment(), **own})
    servers = [stack.stand_in() for _ in range(2)]
    # One slot each: what is begun next is what is taken next.
    workers = [stack.worker(server.url, {**own, "WORKER_SLOTS": "1"}) for server in servers]
    long = [client.send(bars(seed + 500 + n, seconds=LONG_SECONDS, steps=3000)) for n in range(2)]
    for worker, server in zip(workers, servers, strict=True):
        worker.wait_until(lambda server=server: len(server.execution_log()) == 1)

    waiting: dict[int, list[str]] = {9: [], 3: []}
    for n in range(WAITING):
        priority = 9 if n % 2 else 3
        job = client.send(bars(seed + 1000 + n), options={"priority": priority})
        waiting[priority].append(job.id)
    with redis.Redis.from_url(valkey.url) as broker:
        queues = ("comfyui\x06\x163", "comfyui\x06\x169")
        assert [broker.llen(queue) for queue in queues] == [WAITING / 2, WAITING / 2]
    endless = {"seconds": LONG_SECONDS, "steps": 3000}
    bare = client.send(bars(seed + 600, **endless), options={"priority": 0})
    typed = enqueue(bars(seed + 700, **endless), priority="urgent", celery=client.celery)
    assert [job.state for job in long] == ["PROGRESS", "PROGRESS"]
    for job in long:
        job.revoke(terminate=True)
    # Neither ends before the other worker's first has.
    for worker, server in zip(workers, servers, strict=True):
        worker.wait_until(lambda server=server: len(server.execution_log()) >= 2)
    for job in (bare, typed):
        job.revoke(terminate=True)

    for worker, server in zip(workers, servers, strict=True):
        worker.wait_until(lambda server=server: len(server.execution_log()) >= 4)
    orders = [[execution.prompt_id for execution in one.execution_log()] for one in servers]
    for worker in workers:
        worker.kill()
    client.close()

    def prompts(job_ids: list[str]) -> set[str]:
        return {prompt_id(job_id, 1) for job_id in job_ids}

    assert {order[0] for order in orders} == prompts([job.id for job in long])
    assert {order[1] for order in orders} == prompts([bare.id, typed.id])
    # Then, in their order, those that are neither urgent nor batch.
    following = [prompt_id(job_id, 1) for job_id in waiting[3]]
    for order in orders:
        places = [following.index(prompt) for prompt in order[2:]]
        assert places == sorted(places)
