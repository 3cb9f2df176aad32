"""The core of the promises where the broker is RabbitMQ, with queues of both types."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import amqp
import pytest
from celery.exceptions import TaskRevokedError
from celery.result import AsyncResult

from sandbox.processes import ChildProcess
from sandbox.proxy import Mode
from sandbox.rabbitmq import RabbitMQ
from sandbox.stack import Stack, StandIn
from tasks import enqueue
from tests.faults import (
    test_adoption,
    test_dead_letters,
    test_leaving,
)
from tests.faults.rabbitmq import LEVELS, RabbitFleet, needs_rabbitmq
from tests.faults.scenes import (
    errors,
    eventually,
    executing,
    sampled,
    was_interrupted,
)
from tests.integration.routing_fleet import CASES, RoutingFleet
from tests.stack import Workflow, bars
from workers.checks.finding import Status
from workers.checks.rabbitmq import check_rabbitmq
from workers.execution.job import prompt_id

pytestmark = [pytest.mark.faults, pytest.mark.rabbitmq, pytest.mark.timeout(180), needs_rabbitmq]

Scene = Callable[[RabbitFleet], None]


def in_turn(fleet: RabbitFleet) -> None:
    """What is urgent is next, and what has time comes last, whoever enqueued it."""
    server = fleet.server()
    fleet.worker(server, WORKER_SLOTS="1")
    long = fleet.send(bars(0, seconds=60, steps=600))
    executing(server)
    normal = [fleet.send(bars(number)) for number in (1, 2)]
    producer = fleet.client.celery
    batch = enqueue(bars(3), priority="batch", celery=producer)
    urgent = enqueue(bars(4), priority="urgent", celery=producer)
    by_number = enqueue(bars(5), priority=8, celery=producer)
    bare = as_documented(fleet, bars(6))
    levels = ("comfyui.urgent", "comfyui", "comfyui.batch")
    eventually(lambda: [fleet.ready(one) for one in levels] == [3, 2, 1])
    assert told_by_comfyfleet(fleet) == {"urgent": 3, "normal": 2, "batch": 1, "returned": 0}
    long.revoke(terminate=True)
    order = [urgent, by_number, bare, *normal, batch]
    for job in order:
        assert fleet.job(job.id).get(timeout=30)
    began = [execution.prompt_id for execution in server.execution_log()]
    assert began == [prompt_id(job.id, 1) for job in (long, *order)]
    assert long.state == "REVOKED"
    assert was_interrupted(server, began[0])


def told_by_comfyfleet(fleet: RabbitFleet) -> dict[str, int]:
    """What waits by level, as another process on this broker counts it."""
    program = (
        "import json; from settings import load; from workers.broker.backlog import read_backlog; "
        "print(json.dumps(dict(read_backlog(load()).waiting)))"
    )
    environment = {**fleet.stack.environment(), **fleet._own}
    told = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return json.loads(told.stdout)


def as_documented(fleet: RabbitFleet, workflow: Workflow) -> AsyncResult:
    """An urgent job of a bare producer, sent as docs/brokers.md shows it."""
    page = (Path(__file__).parents[2] / "docs" / "brokers.md").read_text()
    (snippet,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    url = fleet.rabbitmq.url(fleet.vhost)
    names: dict[str, Any] = {
        "BROKER_URL": url,
        "RESULT_BACKEND": fleet.valkey.url,
        "WORKFLOW": workflow,
    }
    exec(snippet, names)
    names["celery"].backend.result_consumer.stop()
    names["celery"].close()
    return fleet.job(names["job"].id)


def revoked_while_it_waits(fleet: RabbitFleet) -> None:
    """A job that is revoked before anybody begins it takes no GPU, and ends as revoked."""
    server = fleet.server()
    fleet.worker(server, WORKER_SLOTS="1")
    running = fleet.send(bars(1, seconds=5, steps=50))
    first = executing(server)
    waiting = fleet.send(bars(2))
    waiting.revoke()
    with pytest.raises(TaskRevokedError):
        waiting.get(timeout=30)
    assert running.get(timeout=30)
    # Taken after the other one, and with one slot.
    following = fleet.send(bars(3)).get(timeout=30)
    assert fleet.executions() == {first: 1, following["prompt_id"]: 1}
    postponed(fleet, server)
    assert fleet.is_settled()


def postponed(fleet: RabbitFleet, server: StandIn) -> None:
    """A job that waits for its time takes no slot."""
    sent_at = time.time()
    later = fleet.send(bars(4), options={"countdown": 5})
    now = fleet.send(bars(5))
    assert now.get(timeout=30)["outputs"]
    assert later.get(timeout=30)["outputs"]
    began = {one.prompt_id: one.began for one in server.execution_log()}
    assert began[prompt_id(now.id, 1)] < began[prompt_id(later.id, 1)]
    assert began[prompt_id(later.id, 1)] >= sent_at + 5


def too_late(fleet: RabbitFleet) -> None:
    """Jobs that nobody began before their `expires` are revoked, and not just gone."""
    expires = datetime.now(UTC) + timedelta(seconds=0.5)
    celery = fleet.client.celery
    jobs = [enqueue(bars(number), expires=expires, celery=celery) for number in (1, 2)]
    eventually(lambda: fleet.ready() == 2)
    with fleet.channel() as channel:
        # As any worker has done before.
        channel.queue_declare("comfyui.returned", durable=True, auto_delete=False)
        # As of a producer that has nothing of ours: it tells RabbitMQ when to drop its job.
        bare = channel.basic_get("comfyui", no_ack=True)
        bare.properties["expiration"] = "100"
        channel.queue_declare("comfyui.batch", durable=True, auto_delete=False)
        channel.basic_publish(bare, routing_key="comfyui.batch")
    eventually(lambda: fleet.ready("comfyui.returned") == 1)
    assert fleet.ready("comfyui") == 1
    server = fleet.server()
    worker = fleet.worker(server, JOB_MAX_CRASHES="2", JOB_MAX_ATTEMPTS="9")
    for job in jobs:
        with pytest.raises(TaskRevokedError):
            fleet.job(job.id).get(timeout=30)
    eventually(fleet.has_drained)
    assert fleet.executions() == {}
    unreadable(fleet, worker)
    poisonous(fleet, server)
    assert fleet.is_settled()


def unreadable(fleet: RabbitFleet, worker: ChildProcess) -> None:
    """Messages of any form end no worker and do not stay."""
    headers = {"task": "comfyui.run_workflow", "id": "its-id", "lang": "py"}
    with fleet.channel() as channel:
        for body, options in (
            (b"\xff\xfe", {}),
            (b"{", {"content_type": "application/json", "content_encoding": "utf-8"}),
            (b"[[], {}, {}]", {"content_type": "application/x-python-serialize"}),
            (
                b"not json",
                {
                    "content_type": "application/json",
                    "content_encoding": "utf-8",
                    "application_headers": headers,
                },
            ),
            (
                b"[[], {}, {}]",
                {
                    "content_type": "application/json",
                    "content_encoding": "no-such-encoding",
                    "application_headers": {**headers, "id": 7, "eta": [1]},
                },
            ),
        ):
            channel.basic_publish(amqp.Message(body, **options), routing_key="comfyui")
    eventually(fleet.has_drained)
    eventually(lambda: fleet.job("its-id").state == "FAILURE")
    assert fleet.send(bars(1)).get(timeout=30)["outputs"]
    assert worker.returncode is None


def handed_back(fleet: RabbitFleet) -> None:
    """Who is asked to leave ends what is short, and gives back what is not."""
    slow, fast = fleet.server(step_seconds=0.5), fleet.server()
    worker = fleet.worker(slow, SHUTDOWN_GRACE_SECONDS="6")
    short = fleet.send(bars(1, seconds=3, steps=30))
    ended = executing(slow)
    long = fleet.send(sampled(steps=120))
    eventually(fleet.has_drained)
    behind = fleet.send(bars(3))
    test_leaving.gone(worker, test_leaving.GONE_SECONDS, signal.SIGTERM)
    assert errors(short.get(timeout=5)) == [None]
    assert fleet.ready() == 2
    fleet.worker(fast, WORKER_SLOTS="1")
    result = long.get(timeout=30)
    assert errors(result) == ["WorkerLeaving", None]
    following = behind.get(timeout=30)["prompt_id"]
    # What was given back stands before what came later.
    assert [one.prompt_id for one in fast.execution_log()] == [result["prompt_id"], following]
    assert slow.executions()[ended] == 1
    assert fleet.is_settled()


def cut_off(fleet: RabbitFleet) -> None:
    """A job goes on while the connection is lost and its message comes to others."""
    places = {}
    for server in (fleet.server(), fleet.server()):
        proxy = fleet.proxy(f"amqp://{fleet.rabbitmq.address}")
        url = fleet.rabbitmq.url(fleet.vhost, proxy.address)
        places[server] = (proxy, fleet.worker(server, CELERY_BROKER_URL=url))
    job = fleet.send(bars(1, seconds=6, steps=60))
    busy = eventually(lambda: next((one for one in places if one.executions()), None))
    proxy, cut = places[busy]
    proxy.set(Mode.REFUSE)
    eventually(lambda: "no connection to" in cut.log.read_text())
    proxy.set(Mode.PASS)
    result = job.get(timeout=60)
    assert (result["instance"], errors(result)) == (busy.url, [None])
    assert fleet.send(bars(2)).get(timeout=30)["outputs"]
    assert set(fleet.executions().values()) == {1}
    # Somebody looks at the job again, finds that it has ended, and settles its message.
    eventually(lambda: _came_again(fleet, job.id))
    shared(fleet, list(places))
    assert fleet.is_settled()


def _came_again(fleet: RabbitFleet, job_id: str) -> bool:
    """Whether a worker has had a job's message after its end, and settled it."""
    told = f"job {job_id}: came again after its end"
    return any(told in worker.log.read_text() for worker in fleet.workers)


def routed(fleet: RabbitFleet) -> None:
    """A job runs where it can, at its first attempt, and fails at once where it cannot."""
    routing = RoutingFleet(fleet)
    jobs = [
        (case, routing.submit(case.workflow(100 * number + copy)))
        for number, case in enumerate(CASES.values())
        for copy in range(3)
    ]
    for case, job in jobs:
        if case.places:
            assert routing.where(job, 30) in case.places
            assert len(routing.attempts(job)) == 1
        else:
            error = job.get(timeout=30, propagate=False)
            assert type(error).__name__ == "InvalidWorkflowError"
    assert set(fleet.executions().values()) == {1}
    assert fleet.is_settled()


def shared(fleet: RabbitFleet, servers: list[StandIn]) -> None:
    """What waits behind a long job is given to a server that has nothing to do."""
    long = fleet.send(bars(3, seconds=60, steps=600))
    prompt = prompt_id(long.id, 1)
    busy = eventually(lambda: next((one for one in servers if prompt in one.executions()), None))
    short = [fleet.send(bars(number, seconds=0.2)) for number in (4, 5, 6)]
    results = [job.get(timeout=50) for job in short]
    assert [errors(result) for result in results] == [[None]] * 3
    assert busy.url not in {result["instance"] for result in results}
    long.revoke(terminate=True)
    with pytest.raises(TaskRevokedError):
        long.get(timeout=30)
    assert set(fleet.executions().values()) == {1}


def poisonous(fleet: RabbitFleet, server: StandIn) -> None:
    """A job that takes its server down each time goes to the dead letters, and others go on."""
    poison = fleet.send(test_dead_letters.deadly(2))
    other = fleet.send(bars(3))

    def has_ended() -> bool:
        if server.process.returncode is not None:
            server.start()
        return poison.ready() and other.ready()

    eventually(has_ended, 60)
    assert type(poison.result).__name__ == "PoisonedJobError"
    assert fleet.redis.hkeys("comfyfleet:dead") == [poison.id]
    assert other.result["outputs"]


def _scene(test: Any) -> Scene:
    """The scene of another module's test, which is played there on Redis."""
    return test.scene  # type: ignore[no-any-return]


SCENES: dict[str, tuple[str, Scene]] = {
    "priorities, revoked while it runs": ("quorum", in_turn),
    "revoked while it waits, countdown": ("classic", revoked_while_it_waits),
    "expired, malformed, poison": ("quorum", too_late),
    "SIGTERM": ("classic", handed_back),
    "connection cut, an idle server": ("quorum", cut_off),
    "routing": ("quorum", routed),
    "kill -9": (
        "quorum",
        _scene(test_adoption.test_a_running_prompt_is_taken_over_with_its_progress),
    ),
}


def played(stack: Stack, rabbitmq: RabbitMQ) -> dict[str, Future[None]]:
    """All scenes, each in a fleet of its own, at the same time."""
    fleets = {name: RabbitFleet(stack, rabbitmq, kind) for name, (kind, _) in SCENES.items()}
    pool = ThreadPoolExecutor(len(fleets))

    def play(name: str) -> None:
        with fleets[name] as fleet:
            SCENES[name][1](fleet)

    futures = {name: pool.submit(play, name) for name in fleets}
    pool.shutdown(wait=False)
    return futures


@pytest.fixture(scope="module")
def rabbitmq(stack: Stack) -> Iterator[RabbitMQ]:
    kinds = Counter(kind for kind, _ in SCENES.values())
    # One more of each kind for those that last; each costs at every start.
    one = RabbitMQ(stack.folder("rabbitmq"), vhosts=max(kinds.values()) + 1)
    yield one
    one.close()


@pytest.fixture(scope="module")
def lasting(stack: Stack, rabbitmq: RabbitMQ) -> Iterator[list[RabbitFleet]]:
    """Fleets on queues of each type that were declared long before they are used."""
    with (
        RabbitFleet(stack, rabbitmq, "classic") as classic,
        RabbitFleet(stack, rabbitmq, "quorum") as quorum,
    ):
        for fleet in (classic, quorum):
            with fleet.channel() as channel:
                for queue in LEVELS:
                    channel.queue_declare(queue, durable=True, auto_delete=False)
        yield [classic, quorum]


@pytest.fixture(scope="module")
def scenes(stack: Stack, rabbitmq: RabbitMQ, lasting: list[RabbitFleet]) -> dict[str, Future[None]]:
    assert lasting
    return played(stack, rabbitmq)


@pytest.mark.parametrize("name", SCENES)
def test_on_rabbitmq(scenes: dict[str, Future[None]], name: str) -> None:
    scenes[name].result()


def test_doctor_says_of_which_type_the_queue_is(lasting: list[RabbitFleet]) -> None:
    for fleet, kind in zip(lasting, ("classic", "quorum"), strict=True):
        found = check_rabbitmq(fleet.rabbitmq.url(fleet.vhost))
        assert found.status is Status.OK
        assert f"queue comfyui is of the type {kind}" in found.sentence


def test_a_broker_that_is_killed_and_started(
    rabbitmq: RabbitMQ, lasting: list[RabbitFleet]
) -> None:
    servers = [fleet.server() for fleet in lasting]
    workers = [fleet.worker(server) for fleet, server in zip(lasting, servers, strict=True)]
    sent = [
        [fleet.send(bars(number, seconds=(6, 2, 8)[number], steps=40)).id for number in range(3)]
        for fleet in lasting
    ]
    for fleet, server in zip(lasting, servers, strict=True):
        executing(server)
        eventually(lambda fleet=fleet: fleet.ready() == 1)
    # RabbitMQ 3.10 has queues without a leader if it is killed just after they were declared.
    rabbitmq.configure("consumer_timeout = 3000")
    rabbitmq.kill()
    rabbitmq.start()
    for fleet, worker, jobs in zip(lasting, workers, sent, strict=True):
        results = [fleet.job(job).get(timeout=60) for job in jobs]
        assert [errors(result) for result in results] == [[None]] * 3
        assert fleet.executions() == {result["prompt_id"]: 1 for result in results}
        assert worker.returncode is None
        # Held for longer than it may be: its message came again, and was settled then.
        assert "delivery acknowledgement on channel" in worker.log.read_text()
        eventually(lambda fleet=fleet, job=jobs[-1]: _came_again(fleet, job))
        assert fleet.is_settled()
