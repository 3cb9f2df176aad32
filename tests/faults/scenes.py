"""What the tests of faults share: a fleet to hurt, ways to await what it does, scenes at once."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import chain
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import pytest
import redis
import requests
from celery.result import AsyncResult

from cli.graphs import text_to_image
from sandbox.comfyui.model_files import CHECKPOINTS
from sandbox.processes import ChildProcess
from sandbox.proxy import TcpProxy
from sandbox.stack import Stack, StandIn
from sandbox.valkey import Valkey
from tests.stack import Client, Workflow

T = TypeVar("T")
Scene = Callable[["Fleet"], None]

PICK_UP_SECONDS = 30.0
"""A killed worker's job starts elsewhere within so many."""

_LOOK_SECONDS = 0.02


def eventually(condition: Callable[[], T], seconds: float = 30.0) -> T:
    """Wait until it is true, and return what it is then."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(_LOOK_SECONDS)
    return found


class Fleet:
    """Workers and servers on a broker of their own; nothing of it is left when it is closed."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self._undo = ExitStack()
        self.valkey = Valkey(stack.folder("valkey"))
        self._undo.callback(self.valkey.stop)
        self.redis = redis.Redis.from_url(self.valkey.url, decode_responses=True)
        self._undo.callback(self.redis.close)
        self._own = {
            "CELERY_BROKER_URL": self.valkey.url,
            "CELERY_RESULT_BACKEND": self.valkey.url,
            # Whoever still has a job when its test is over holds nobody up.
            "SHUTDOWN_GRACE_SECONDS": "0",
        }
        self.client = Client({**stack.environment(), **self._own})
        self._servers: list[StandIn] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self._undo.close()

    def server(self, step_seconds: float = 0.01, **options: Any) -> StandIn:
        """A stand-in; `sampled` takes as long as its steps; options are those of `StandIn`."""
        server = self.stack.stand_in(step_seconds=step_seconds, **options)
        # Not that of the process: there may be another one by then.
        self._undo.callback(server.stop)
        self._servers.append(server)
        return server

    def worker(self, server: StandIn, **settings: str) -> ChildProcess:
        """A worker that takes jobs."""
        worker = self.stack.worker(settings.pop("url", server.url), {**self._own, **settings})
        self._undo.callback(worker.stop)
        return worker

    def launch(self, servers: Sequence[StandIn], **settings: str) -> ChildProcess:
        """A worker that takes one of these servers, or waits for one."""
        urls = ",".join(server.url for server in servers)
        one_of = {"COMFYUI_URL": "", "COMFYUI_URLS": urls}
        worker = self.stack.launch_worker(settings={**self._own, **one_of, **settings})
        self._undo.callback(worker.stop)
        return worker

    def proxy(self, url: str) -> TcpProxy:
        """Something between a worker and what it uses, to be hurt in its place."""
        target = urlsplit(url)
        return self._undo.enter_context(TcpProxy(str(target.hostname), target.port or 0))

    def send(self, workflow: Workflow, job_id: str | None = None, **options: Any) -> AsyncResult:
        """Enqueue a job; options are those of `Client.send`."""
        celerys = {**options.pop("options", {}), **({"task_id": job_id} if job_id else {})}
        return self.client.send(workflow, options=celerys, **options)

    def reconnect(self) -> None:
        """Have a client that knows nothing of the broker before."""
        self.client.close()
        self.client = Client({**self.stack.environment(), **self._own})

    def job(self, job_id: str) -> AsyncResult:
        """A job that was sent before."""
        return self.client.celery.AsyncResult(job_id)

    def waiting(self) -> list[str]:
        """The ids of jobs that nobody has taken, the next one first."""
        found = self.redis.lrange("comfyui", 0, -1)
        return [json.loads(one)["headers"]["id"] for one in reversed(found)]  # type: ignore[arg-type]

    def in_lanes(self) -> list[str]:
        """The ids of jobs that wait for servers that can run them, or have their models loaded."""
        lists = self.redis.scan_iter("comfyfleet:lane:*")
        found = [one for name in lists for one in self.redis.lrange(name, 0, -1)]  # type: ignore[union-attr]
        return [json.loads(one)["headers"]["id"] for one in reversed(found)]

    def told_of(self) -> set[str]:
        """The servers that workers tell each other of, by the keys where they do."""
        return set(self.redis.scan_iter("comfyfleet:server:*"))

    def silence(self, server: StandIn) -> None:
        """Have all count a server as if nothing had been heard of it for too long."""
        for digest in self._untold(server):
            self.redis.zadd("comfyfleet:digests", {digest: time.time() - 1})

    def forget(self, server: StandIn) -> None:
        """Have nobody know that a server was ever there."""
        for digest in self._untold(server):
            self.redis.zrem("comfyfleet:digests", digest)

    def _untold(self, server: StandIn) -> Iterator[str]:
        for key in self.told_of():
            told = json.loads(str(self.redis.get(key)))
            if told["instance"] == server.url:
                self.redis.delete(key)
                yield told["digest"]

    def has_drained(self) -> bool:
        """Whether no message is left, neither waiting nor unacknowledged."""
        keys = ("comfyui", "comfyfleet:unacked", "comfyfleet:unacked_index")
        patterns = ("comfyfleet:taken:*", "comfyfleet:lane:*")
        left = chain(keys, *(self.redis.scan_iter(one) for one in patterns))
        return not any(self.redis.exists(key) for key in left)

    def executions(self) -> dict[str, int]:
        """How often each prompt was begun, on all servers together."""
        counts = [server.executions() for server in self._servers]
        return {p: sum(one.get(p, 0) for one in counts) for p in {p for one in counts for p in one}}

    def stored(self, job_id: str) -> set[str]:
        """The names of a job's objects, without its folder."""
        return {key.removeprefix(f"{job_id}/") for key in self.client.keys(f"{job_id}/")}


def errors(told: Mapping[str, Any]) -> list[str | None]:
    """The error that ended each attempt, without its message; told by a result or a failure."""
    found = [attempt["error"] for attempt in told["attempts"]]
    return [error and error.partition(":")[0] for error in found]


def step_of(job: AsyncResult) -> int:
    """How far a job was when it told last."""
    return (job.info or {}).get("step") or 0


def executing(server: StandIn, count: int = 1) -> str:
    """The prompt that the server began to execute last, once it has begun so many."""
    eventually(lambda: sum(server.executions().values()) >= count)
    return server.execution_log()[-1].prompt_id


def history(server: StandIn, prompt_id: str) -> dict[str, Any]:
    """What the server tells of a prompt that has ended, else nothing."""
    answer = requests.get(f"{server.url}/history/{prompt_id}", timeout=5).json()
    return dict(answer.get(prompt_id, {}))


def was_interrupted(server: StandIn, prompt_id: str) -> bool:
    """Whether the server has stopped the prompt before its end."""
    messages = history(server, prompt_id).get("status", {}).get("messages", [])
    return "execution_interrupted" in dict(messages)


def pending(server: StandIn) -> list[str]:
    """The prompts that wait in the server's queue."""
    return [
        item[1] for item in requests.get(f"{server.url}/queue", timeout=5).json()["queue_pending"]
    ]


def is_idle(server: StandIn) -> bool:
    """Whether the server has no prompt, neither running nor pending."""
    return not any(requests.get(f"{server.url}/queue", timeout=5).json().values())


@contextmanager
def spoilt(server: StandIn, *rules: Mapping[str, Any]) -> Iterator[None]:
    """Have the server answer some requests wrongly, as its faults API has it."""
    url = f"{server.url}/sandbox/faults"
    requests.put(url, json={"http": rules}, timeout=5).raise_for_status()
    try:
        yield
    finally:
        requests.delete(url, timeout=5).raise_for_status()


def sampled(steps: int = 100) -> Workflow:
    """A workflow that takes as long as the server that executes it is slow."""
    workflow = text_to_image(CHECKPOINTS[0], "a cat", seed=1)
    workflow["3"]["inputs"]["steps"] = steps
    workflow["5"]["inputs"] |= {"width": 64, "height": 64}
    return workflow


def together(scene: Scene) -> Callable[[pytest.FixtureRequest, Stack], None]:
    """A test that is played in a fleet of its own, at the same time as its module's others.

    For scenes that mostly wait, such as for the broker to give back what a dead worker held.
    """

    def test(request: pytest.FixtureRequest, stack: Stack) -> None:
        if scene not in _PLAYED:
            _PLAYED.update(_play(request, stack))
        _PLAYED[scene].result()

    test.__name__, test.__module__ = scene.__name__, scene.__module__
    test.scene = scene  # type: ignore[attr-defined]
    return test


_PLAYED: dict[Scene, Future[None]] = {}


def _play(request: pytest.FixtureRequest, stack: Stack) -> dict[Scene, Future[None]]:
    items = [item for item in request.session.items if item.path == request.path]
    # Of functions with parameters there is an item for each of these.
    scenes = {item.function.scene for item in items if hasattr(item.function, "scene")}  # type: ignore[attr-defined]
    # One after the other: what boto3 prepares for its first client is not for several threads.
    fleets = {scene: Fleet(stack) for scene in scenes}
    pool = ThreadPoolExecutor(len(scenes))

    def play(scene: Scene, fleet: Fleet) -> None:
        with fleet:
            scene(fleet)

    played = {scene: pool.submit(play, scene, fleet) for scene, fleet in fleets.items()}
    pool.shutdown(wait=False)
    return played
