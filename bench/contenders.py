"""Those who do the jobs, each from a list of workflows to a list of results."""

import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Protocol

import websocket
from celery import Celery
from celery.result import ResultSet

from bench import guide, plain_celery
from bench.model import QUEUE, TASK, BenchError, Kind, Result, Workflow
from bench.rig import Rig
from bench.servers import Server

# Seconds without the last result after which something is wrong.
_PATIENCE_SECONDS = 300.0


class Contender(Protocol):
    """Does jobs on the servers that it was made for."""

    def run(self, workflows: Sequence[Workflow], unawaited: int = 0) -> list[Result]:
        """Begin all jobs, in this order, and return the results, in any order.

        Args:
            workflows: one a job.
            unawaited: so many of the first are not waited for.
        """


@contextmanager
def contender(kind: Kind, rig: Rig, servers: Sequence[Server]) -> Iterator[Contender]:
    """A contender that is ready to begin; its workers, if it has any, run meanwhile."""
    match kind:
        case Kind.LIMIT:
            yield Limit(servers)
        case Kind.SEQUENTIAL:
            with ending_soon(ThreadPoolExecutor(len(servers))) as clients:
                yield Sequential(rig, servers, clients)
        case Kind.PLAIN_2 | Kind.PLAIN_6:
            threads = 2 if kind is Kind.PLAIN_2 else 6
            with rig.plain_workers(servers, threads, kind), rig.producer() as app:
                yield Queued(app, plain_celery.TASK, kind)
        case Kind.OURS:
            with rig.workers(servers), rig.producer() as app:
                yield Queued(app, TASK, QUEUE)


class Limit:
    """What a server can do: all prompts are there at once, and nothing is stored."""

    def __init__(self, servers: Sequence[Server]) -> None:
        """Name the servers; of several, each gets every so-manieth prompt."""
        self._servers = servers

    def run(self, workflows: Sequence[Workflow], unawaited: int = 0) -> list[Result]:
        """Post and listen; what is not waited for has servers of its own."""
        apart = self._servers[:unawaited]
        for server, workflow in zip(apart, workflows, strict=False):
            server.post(workflow, uuid.uuid4().hex)
        servers, rest = self._servers[len(apart) :], workflows[unawaited:]
        with ThreadPoolExecutor(len(servers)) as clients:
            parts = [rest[number :: len(servers)] for number in range(len(servers))]
            return [one for part in clients.map(_post_all, servers, parts) for one in part]


class Sequential:
    """A client for each server that does one job after the other as ComfyUI's guides show it."""

    def __init__(self, rig: Rig, servers: Sequence[Server], clients: ThreadPoolExecutor) -> None:
        """Take as many clients as servers; they share one list of jobs."""
        self._rig = rig
        self._clients = clients
        self._free: SimpleQueue[str] = SimpleQueue()
        for server in servers:
            self._free.put(server.url)

    def run(self, workflows: Sequence[Workflow], unawaited: int = 0) -> list[Result]:
        """Do them."""
        futures = [self._clients.submit(self._do, workflow) for workflow in workflows]
        return [future.result(_PATIENCE_SECONDS) for future in futures[unawaited:]]

    def _do(self, workflow: Workflow) -> Result:
        url = self._free.get()
        try:
            prompt_id = guide.do_job(url, workflow, self._put)
            return Result(url, prompt_id, time.time())
        finally:
            self._free.put(url)

    def _put(self, key: str, content: bytes) -> None:
        bucket = self._rig.stack.seaweedfs.bucket
        self._rig.s3.put_object(Bucket=bucket, Key=key, Body=content)


class Queued:
    """Whatever works behind a Celery queue."""

    def __init__(self, app: Celery, task: str, queue: str) -> None:
        """Name what to send and where."""
        self._app = app
        self._task = task
        self._queue = queue

    def run(self, workflows: Sequence[Workflow], unawaited: int = 0) -> list[Result]:
        """Send all, then wait for the results as they come."""
        handles = [
            self._app.send_task(self._task, kwargs={"workflow": workflow}, queue=self._queue)
            for workflow in workflows
        ]
        awaited = ResultSet(handles[unawaited:], app=self._app)
        results = []
        for job_id, meta in awaited.iter_native(timeout=_PATIENCE_SECONDS):
            if meta["status"] != "SUCCESS":
                raise BenchError(f"job {job_id} of {self._task} failed: {meta['result']}")
            told = meta["result"]
            results.append(Result(told["instance"], told["prompt_id"], time.time()))
        for handle in handles[:unawaited]:
            handle.forget()
        return results


@contextmanager
def ending_soon(threads: ThreadPoolExecutor) -> Iterator[ThreadPoolExecutor]:
    """Threads that begin nothing any more when the block has ended, however it ends."""
    try:
        yield threads
    finally:
        threads.shutdown(cancel_futures=True)


def _post_all(server: Server, workflows: Sequence[Workflow]) -> list[Result]:
    client_id = uuid.uuid4().hex
    address = f"ws{server.url.removeprefix('http')}/ws?clientId={client_id}"
    ws = websocket.create_connection(address, timeout=_PATIENCE_SECONDS)
    try:
        open_prompts = {server.post(workflow, client_id) for workflow in workflows}
        results = []
        while open_prompts:
            ended = guide.ended_prompt(ws.recv())
            if ended in open_prompts:
                open_prompts.remove(ended)
                results.append(Result(server.url, ended, time.time()))
        return results
    finally:
        ws.close()
