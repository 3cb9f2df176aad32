"""What all contenders share: broker, store behind its distance, servers, and their workers."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import redis
from celery import Celery

from bench.distance import Relay
from bench.model import RENDER, BenchError
from bench.servers import Server
from bench.workflows import Graphs
from sandbox.processes import ChildProcess
from sandbox.stack import LOOPBACK, Stack, StandIn

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

Tell = Callable[[str], None]
"""Is told how far it is."""

_ROOT = Path(__file__).parents[1]
# Sixteen workers that start at once on two cores take their time.
_START_SECONDS = 120.0


class Rig:
    """Everything that is started once; its workers come and go."""

    def __init__(self, stack: Stack, relay: Relay, urls: Sequence[str], undo: ExitStack) -> None:
        """Take what runs; `Rig.started` starts it.

        Args:
            stack: with its first stand-in running, unless there are URLs.
            relay: to the store.
            urls: of real servers to use instead of stand-ins.
            undo: closes what is opened here.
        """
        self.stack = stack
        self.relay = relay
        self.stand_ins: list[StandIn] = [] if urls else [stack.comfyui]
        self._undo = undo
        self._urls = urls
        self._servers = [self._server(url) for url in urls or [stack.comfyui.url]]
        self.graphs = Graphs(renders=all(one.has_node(RENDER) for one in self._servers))
        credentials = stack.seaweedfs.credentials
        self.s3: S3Client = boto3.client(
            "s3",
            endpoint_url=relay.url,
            aws_access_key_id=credentials["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=credentials["AWS_SECRET_ACCESS_KEY"],
            region_name=credentials["AWS_DEFAULT_REGION"],
        )
        undo.callback(self.s3.close)
        self.redis = undo.enter_context(redis.Redis.from_url(stack.valkey.url))

    @classmethod
    @contextmanager
    def started(cls, urls: Sequence[str] = ()) -> Iterator["Rig"]:
        """Start broker, store and a server, and leave nothing of them."""
        os.environ.update(LOOPBACK)
        # The user's own must not reach the store.
        for name in ("AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ENDPOINT_URL_S3"):
            os.environ.pop(name, None)
        with ExitStack() as undo:
            stack = undo.enter_context(Stack(urls[0] if urls else None))
            # Celery prefers these variables to whatever an app is given.
            os.environ.update(
                CELERY_BROKER_URL=stack.valkey.url, CELERY_RESULT_BACKEND=stack.valkey.url
            )
            relay = undo.enter_context(Relay(stack.seaweedfs.url))
            yield cls(stack, relay, urls, undo)

    def servers(self, count: int) -> list[Server]:
        """The first so many servers; stand-ins are started where they are missing."""
        while len(self._servers) < count:
            if self._urls:
                raise BenchError(f"BENCH_COMFYUI_URL names {len(self._urls)} servers, not {count}")
            self.stand_ins.append(self.stack.stand_in())
            self._servers.append(self._server(self.stand_ins[-1].url))
        return self._servers[:count]

    @contextmanager
    def workers(
        self, servers: Sequence[Server], settings: Mapping[str, str] | None = None
    ) -> Iterator[list[ChildProcess]]:
        """Workers of ours, one a server."""
        own = {"S3_ENDPOINT_URL": self.relay.url, **(settings or {})}

        def launch(server: Server) -> ChildProcess:
            return self.stack.launch_worker(server.url, own)

        with self._running(launch, servers) as processes:
            yield processes

    @contextmanager
    def plain_workers(
        self, servers: Sequence[Server], threads: int, queue: str
    ) -> Iterator[list[ChildProcess]]:
        """Workers of the plain Celery task, one a server."""

        def launch(server: Server) -> ChildProcess:
            port = server.url.rpartition(":")[2]
            return ChildProcess(
                [
                    *(sys.executable, "-m", "celery", "-A", "bench.plain_celery", "worker"),
                    *("--pool=threads", f"--concurrency={threads}", f"--queues={queue}"),
                    *(f"--hostname={queue}-{port}@%h", "--loglevel=INFO"),
                ],
                self.stack.folder("plain") / "worker.log",
                env={**self.stack.environment(server.url), "S3_ENDPOINT_URL": self.relay.url},
                cwd=_ROOT,
            )

        with self._running(launch, servers) as processes:
            yield processes

    @contextmanager
    def producer(self) -> Iterator[Celery]:
        """A bare Celery client, as any service has one."""
        url = self.stack.valkey.url
        app = Celery(broker=url, backend=url, set_as_current=False)
        try:
            yield app
        finally:
            app.backend.result_consumer.stop()
            # A result that nobody waits for any more would look for the broker when that has gone.
            app.backend.result_consumer._pubsub = None  # noqa: SLF001
            app.close()

    def used_memory(self) -> int:
        """Bytes that the broker holds."""
        return int(self.redis.info("memory")["used_memory"])

    @contextmanager
    def _running(
        self, launch: Callable[[Server], ChildProcess], servers: Sequence[Server]
    ) -> Iterator[list[ChildProcess]]:
        with ExitStack() as undo:
            # What they leave behind is nobody's.
            undo.callback(self.redis.flushall)
            processes = []
            for server in servers:
                processes.append(launch(server))
                # Not `stop`: who is asked to leave ends jobs that nobody waits for any more.
                undo.callback(processes[-1].kill)
            for process in processes:
                process.wait_until(partial(_is_ready, process), _START_SECONDS)
            yield processes

    def _server(self, url: str) -> Server:
        return self._undo.enter_context(Server(url))


def _is_ready(process: ChildProcess) -> bool:
    return " ready." in process.log.read_text(errors="replace")
