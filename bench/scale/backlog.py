"""A queue with very many waiting jobs: what it costs, and whether it slows anything down."""

import time

from celery import Celery

from bench.figures import throughput
from bench.model import QUEUE, TASK, BenchError, Execution
from bench.rig import Rig, Tell
from bench.scale.model import Backlog, Start
from sandbox.processes import ChildProcess

# Short ones, so that nothing between two of them stays hidden.
_SECONDS = 0.1
_EXECUTIONS = 120
_S3_SECONDS = 0.005
_CHUNK = 1000
_PATIENCE_SECONDS = 120.0
_LOOK_SECONDS = 0.2


def run_backlog(rig: Rig, waiting: int, tell: Tell) -> Backlog:
    """Let a worker start at a short queue, at one with so many waiting jobs, and at a short one."""
    rig.relay.seconds = _S3_SECONDS
    # Without a result backend: this producer waits for no result.
    app = Celery(broker=rig.stack.valkey.url, set_as_current=False)
    try:
        before_it = _start_at_short(rig, app, tell)
        tell(f"{waiting} jobs are sent")
        before = rig.used_memory()
        sent_a_second = _send(rig, app, waiting)
        memory = rig.used_memory() - before
        message: bytes = rig.redis.lindex(QUEUE, 0)
        tell("a worker starts at the long queue")
        long = _start(rig, waiting)
        return Backlog(
            message_bytes=len(message),
            sent_a_second=sent_a_second,
            memory_a_job=memory / waiting,
            # Whatever else the machine does may change meanwhile.
            short=(before_it, _start_at_short(rig, app, tell)),
            long=long,
        )
    finally:
        app.close()


def _send(rig: Rig, app: Celery, jobs: int) -> float:
    """Send so many jobs, a multiple of the chunk; returns how many a second that were."""
    began = time.monotonic()
    for _ in range(jobs // _CHUNK):
        for workflow in rig.graphs.batch_of(_CHUNK, _SECONDS):
            app.send_task(TASK, kwargs={"workflow": workflow}, queue=QUEUE)
    return jobs / (time.monotonic() - began)


def _start_at_short(rig: Rig, app: Celery, tell: Tell) -> Start:
    tell("a worker starts at a short queue")
    _send(rig, app, _CHUNK)
    return _start(rig, _CHUNK)


def _start(rig: Rig, waiting: int) -> Start:
    """Start a worker and let it execute some of the jobs; the rest is thrown away."""
    servers = rig.servers(1)
    servers[0].clear()
    began = time.time()
    with rig.workers(servers) as (worker,):
        done = _executed(rig, worker)
    servers[0].clear()
    return Start(
        waiting=waiting,
        seconds=min(one.started for one in done) - began,
        a_second=throughput(done),
    )


def _executed(rig: Rig, worker: ChildProcess) -> list[Execution]:
    """The first executions, when there are enough of them."""
    (server,) = rig.servers(1)
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while len(done := server.all_executions()) < _EXECUTIONS:
        if time.monotonic() > deadline or worker.returncode is not None:
            raise BenchError(f"only {len(done)} jobs were executed:\n{worker.tail()}")
        time.sleep(_LOOK_SECONDS)
    return done
