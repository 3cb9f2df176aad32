"""The Redis users of deploy/security: each can do its work, and no more."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import redis

from sandbox.processes import ChildProcess
from sandbox.valkey import Valkey
from tasks import Batch, enqueue_batch
from tests.command_line import Comfyfleet
from tests.conftest import WEBHOOK_SECRET
from tests.stack import Client, Stack, bars

pytestmark = [
    pytest.mark.integration,
    # Celery's own backend.
    pytest.mark.filterwarnings("ignore:Call to deprecated setex"),
]

ROOT = Path(__file__).parents[2]
USERS = (ROOT / "deploy" / "security" / "users.acl").read_text()


class Closed(NamedTuple):
    """A Valkey with these users and no other, and what works with it."""

    admin: redis.Redis
    valkey: Valkey
    worker: ChildProcess
    stack: Stack

    def environment(self, user: str) -> dict[str, str]:
        url = self.valkey.url.replace("://", f"://{user}:change-me-{user}@")
        own = {"CELERY_BROKER_URL": url, "CELERY_RESULT_BACKEND": url}
        return {**self.stack.environment(), **own}

    def as_user(self, user: str) -> redis.Redis:
        return redis.Redis.from_url(self.environment(user)["CELERY_BROKER_URL"])


@pytest.fixture(scope="module")
def closed(stack: Stack) -> Iterator[Closed]:
    valkey = Valkey(stack.folder("valkey"))
    # The default user's connection outlives the user.
    admin = redis.Redis.from_url(valkey.url, decode_responses=True, single_connection_client=True)
    *users, default = reversed([line.split() for line in USERS.splitlines()])
    for _, *rules in (*users, default):
        admin.execute_command("ACL", "SETUSER", *rules)
    url = valkey.url.replace("://", "://worker:change-me-worker@")
    own = {"CELERY_BROKER_URL": url, "CELERY_RESULT_BACKEND": url}
    worker = stack.launch_worker(settings={**own, "WEBHOOK_SECRET": WEBHOOK_SECRET})
    try:
        worker.wait_until(lambda: " ready." in worker.tail())
        yield Closed(admin, valkey, worker, stack)
    finally:
        worker.stop()
        # There is nobody left who may ask it whether it is there.
        valkey.kill()
        admin.close()


@pytest.fixture
def nothing_is_denied(closed: Closed) -> Iterator[None]:
    """What is not allowed would often only be retried, or logged."""
    closed.admin.execute_command("ACL", "LOG", "RESET")
    yield
    log: Any = closed.admin.execute_command("ACL", "LOG")
    assert log == []


@pytest.fixture
def producer(closed: Closed) -> Iterator[Client]:
    one = Client(closed.environment("producer"))
    yield one
    one.close()


@pytest.mark.usefixtures("nothing_is_denied")
def test_a_producer_enqueues_waits_and_revokes(closed: Closed, producer: Client, seed: int) -> None:
    webhook = {"url": "https://hooks.invalid/"}
    for priority in (0, 9):
        job = producer.send(
            bars(seed + 1000 * priority), options={"priority": priority}, webhook=webhook
        )
        assert len(job.get(timeout=30)["outputs"]) == 1
    running = producer.send(bars(seed, seconds=20, steps=200))
    while running.state != "PROGRESS":
        time.sleep(0.02)
    running.revoke(terminate=True)
    closed.worker.wait_until(lambda: running.state == "REVOKED")


@pytest.mark.usefixtures("nothing_is_denied")
def test_a_producer_has_its_batches(producer: Client, seed: int) -> None:
    rows = [{"1.seed": seed + 1000 * number} for number in range(2)]
    batch = enqueue_batch(bars(seed), rows, celery=producer.celery)
    restored = Batch.restore(batch.id, producer.celery)
    assert len(restored.results(timeout=30)) == 2


@pytest.mark.usefixtures("nothing_is_denied")
def test_an_operator_has_all_commands(closed: Closed, seed: int, tmp_path: Path) -> None:
    comfyfleet = Comfyfleet(closed.environment("operator"))
    file = tmp_path / "workflow.json"
    file.write_text(json.dumps(bars(seed)))
    submitted = comfyfleet("submit", str(file), "--param", "1.seed=5", "--wait", "--json")
    assert submitted.code == 0, submitted.stderr
    job_id = submitted.json["job_id"]
    for command in (
        *(("status", job_id), ("show", job_id), ("result", job_id), ("jobs",)),
        *(("workers",), ("queue",), ("top", "--once"), ("check", str(file))),
        *(("dead", "list"), ("dead", "discard", "--all")),
        *(("webhooks", "list"), ("webhooks", "retry", "--all")),
    ):
        ended = comfyfleet(*command)
        assert ended.code == 0, (command, ended.stderr)
    file.write_text(json.dumps(bars(seed, seconds=20, steps=200)))
    running = comfyfleet("submit", str(file), "--json").json["job_id"]
    assert comfyfleet("cancel", running).code == 0


def test_an_operator_examines_all(closed: Closed) -> None:
    ended = Comfyfleet(closed.environment("operator"))("doctor", "--no-render", "--json")
    assert {one["status"] for one in ended.json} == {"ok"}, ended.stdout


DANGEROUS = ["KEYS *", "FLUSHALL", "CONFIG GET *", "ACL LIST", "SCAN 0", "CLIENT LIST", "SHUTDOWN"]
OTHERS = [
    "GET somebody:elses",
    "BRPOP comfyui 1",
    "LRANGE comfyui 0 -1",
    "DEL comfyui",
    "SET celery-task-meta-1 x",
    "HGETALL comfyfleet:job:1",
    "EVAL return 0",
    "SUBSCRIBE other",
]


@pytest.mark.parametrize("command", [*DANGEROUS, *OTHERS])
def test_a_producer_gets_no_further(closed: Closed, command: str) -> None:
    with closed.as_user("producer") as client, pytest.raises(redis.exceptions.NoPermissionError):
        client.execute_command(*command.split())


@pytest.mark.parametrize("user", ["worker", "operator"])
@pytest.mark.parametrize("command", [*DANGEROUS[:4], *DANGEROUS[5:], "GET somebody:elses"])
def test_who_works_has_no_more_than_the_work(closed: Closed, user: str, command: str) -> None:
    with closed.as_user(user) as client, pytest.raises(redis.exceptions.NoPermissionError):
        client.execute_command(*command.split())


def test_nobody_is_let_in_without_a_name(closed: Closed) -> None:
    with redis.Redis.from_url(closed.valkey.url) as client:
        with pytest.raises(redis.exceptions.AuthenticationError):
            client.ping()
