"""What a job costs beside its execution: requests to the store and to ComfyUI, Redis commands."""

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis
from celery import Celery

from sandbox.stack import Stack
from sandbox.valkey import Valkey
from tasks import enqueue
from tests.faults.scenes import eventually
from tests.integration.tap import HttpTap
from tests.stack import Client, bars

pytestmark = pytest.mark.integration


class Scene:
    """A worker whose every wire is tapped."""

    def __init__(self, stack: Stack, store: HttpTap, comfyui: HttpTap, valkey: Valkey) -> None:
        self.store, self.comfyui, self.valkey = store, comfyui, valkey
        own = {
            "CELERY_BROKER_URL": valkey.url,
            "CELERY_RESULT_BACKEND": valkey.url,
            "S3_ENDPOINT_URL": store.url,
        }
        self.worker = stack.worker(comfyui.url, own)
        self.client = Client({**stack.environment(), **own, "S3_ENDPOINT_URL": stack.seaweedfs.url})


@pytest.fixture(scope="module")
def scene(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    valkey = Valkey(tmp_path_factory.mktemp("valkey"))
    with HttpTap(stack.seaweedfs.url) as store, HttpTap(stack.comfyui.url) as comfyui:
        one = Scene(stack, store, comfyui, valkey)
        # Connections are made and scripts are loaded by the first.
        one.client.run(bars(10**6))
        yield one
        one.client.close()
        one.worker.stop()
    valkey.stop()


@pytest.mark.parametrize("images", [1, 3])
def test_each_file_and_the_manifest_are_one_request_to_the_store(
    scene: Scene, seed: int, images: int
) -> None:
    del scene.store.requests[:]
    result = scene.client.run(bars(seed, batch_size=images))
    files = {("PUT", f"/{o['bucket']}/{o['key']}") for o in result["outputs"]}
    manifest = ("PUT", f"/{scene.client.bucket}/{result['manifest']['key']}")
    assert len(files) == images
    assert Counter(scene.store.requests) == Counter([*files, manifest])
    assert scene.store.requests[-1] == manifest
    # And one round trip.
    assert scene.store.continues == 0


def test_what_is_asked_of_comfyui(scene: Scene, seed: int) -> None:
    del scene.comfyui.requests[:]
    result = scene.client.run(bars(seed))
    history = ("GET", f"/history/{result['prompt_id']}")
    seen = [request for request in scene.comfyui.requests if request != ("GET", "/queue")]
    assert Counter(seen) == Counter([("POST", "/prompt"), ("GET", "/view"), history])


def test_nothing_is_connected_anew_for_a_job(scene: Scene, seed: int) -> None:
    with redis.Redis.from_url(scene.valkey.url) as admin:

        def connections() -> tuple[int, int, int]:
            made = int(admin.info("stats")["total_connections_received"])
            return scene.store.connections, scene.comfyui.connections, made

        # As many as are needed by what comes at the same time.
        for handle in [scene.client.send(bars(seed * 1000 + n)) for n in range(6)]:
            handle.get(timeout=30)
        numbers = iter(range(seed * 1000 + 10, (seed + 1) * 1000))

        def is_the_same_after_six() -> bool:
            before = connections()
            for _ in range(6):
                scene.client.run(bars(next(numbers)))
            return connections() == before

        # What happens now and then may have met no job before.
        eventually(is_the_same_after_six)


def test_what_a_job_costs_redis(scene: Scene, seed: int) -> None:
    jobs = 40
    began = time.monotonic()
    with commands(scene.valkey) as seen:
        handles = [scene.client.send(bars(seed * 1000 + n)) for n in range(jobs)]
        totals = [handle.get(timeout=60)["timings"]["total"] for handle in handles]
        # Who has the last result may have it before its message is acknowledged.
        eventually(lambda: min(seen["EXEC"], seen["UNSUBSCRIBE"]) >= jobs)
    seconds = time.monotonic() - began
    for name, count in _PER_JOB.items():
        # Every three seconds leases are renewed and the server is told of; at first more often.
        assert 0 <= seen[name] - count * jobs <= 2 + 3 * seconds, (name, seen)
    # Whether there is one more to take is asked each time, and now and then while one executes.
    assert jobs <= seen["take"] <= 2 + 1.2 * jobs + seconds
    # Written at once, and then twice a second while it changes.
    assert jobs <= seen["progress"] <= sum(1 + total / 0.5 for total in totals)
    # Whatever has happened, all jobs together, once a second.
    assert 1 <= seen["story"] <= 1 + seconds
    # And nothing else, but for what comes from time to time.
    assert seen["GET"] <= jobs
    rest = seen.total() - sum(
        seen[name] for name in (*_PER_JOB, "take", "progress", "story", "GET")
    )
    assert rest <= 12 + 6 * seconds, seen


# Registered, claimed and ended; the result; and in one round trip the acknowledgement. The others
# are the producer's, which asks once more for a result (GET) if none has come yet.
_PER_JOB = {
    "register": 1,
    "claim and end": 2,
    "result": 1,
    "MULTI": 1,
    "ZREM": 1,
    "HDEL": 1,
    "EXEC": 1,
    "LPUSH": 1,
    "SUBSCRIBE": 1,
    "UNSUBSCRIBE": 1,
}
_SCRIPTS = {
    "'RPOP'": "take",
    "'LREM'": "register",
    '"status": "PROGRESS"': "progress",
    '"status": "SUCCESS"': "result",
}


@contextmanager
def commands(valkey: Valkey) -> Iterator[Counter[str]]:
    """How many commands of each kind clients send to the server meanwhile."""
    counted = Counter[str]()
    begun = threading.Event()

    def watch(monitor: Any) -> None:
        with monitor:
            begun.set()
            for command in monitor.listen():
                if command["command"] == "ECHO over":
                    return
                if command["client_type"] == "tcp":
                    counted[_kind(command["command"])] += 1

    with redis.Redis.from_url(valkey.url, decode_responses=True) as watcher:
        watching = threading.Thread(target=watch, args=(watcher.monitor(),))
        watching.start()
        assert begun.wait(10)
        yield counted
        watcher.execute_command("ECHO", "over")
        watching.join(10)


def _kind(command: str) -> str:
    name = command.partition(" ")[0]
    if name == "EVALSHA" and "comfyfleet:stor" in command:
        return "story"
    if name == "EVALSHA":
        return "claim and end"
    if name == "EVAL":
        return next((kind for word, kind in _SCRIPTS.items() if word in command), "other")
    return name


def test_what_a_large_workflow_costs_redis_while_it_waits(scene: Scene) -> None:
    # A database where nobody takes it.
    url = scene.valkey.url.replace("/0", "/7")
    producer = Celery(broker=url, backend=url)
    node = {"class_type": "CLIPTextEncode", "inputs": {"clip": ["4", 1]}}
    workflow = {
        str(n): {**node, "inputs": {**node["inputs"], "text": f"a cat, number {n}, {n**5:x}"}}
        for n in range(10_000)
    }
    assert len(json.dumps(workflow)) > 1_000_000
    enqueue(workflow, celery=producer)
    with redis.Redis.from_url(url) as broker:
        used = broker.memory_usage("comfyui", samples=0)
    producer.close()
    # Ten thousand of them take less than three gigabytes.
    assert used is not None
    assert used < 300_000
