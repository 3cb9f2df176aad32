"""One job after the other, each on an idle worker of ours."""

import random
import time
from collections.abc import Iterator, Sequence

from celery import Celery

from bench.model import QUEUE, TASK, Single, SingleJob, SingleRun
from bench.rig import Rig, Tell
from bench.waterfall import marks_in
from sandbox.processes import ChildProcess

# A request to the store as a job makes them.
_PROBE_BYTES = 5000
# Between two jobs: from less to more than any interval at which an idle worker does something.
_IDLE_SECONDS = (0.3, 1.3)
_PATIENCE_SECONDS = 60.0


def run_singles(rig: Rig, singles: Sequence[Single], tell: Tell) -> Iterator[SingleRun]:
    """Those that need no timeline on one worker, the others on one that tells of it."""
    for timeline in (False, True):
        chosen = [single for single in singles if single.timeline is timeline]
        if not chosen:
            continue
        settings = {"LOG_LEVEL": "DEBUG" if timeline else "INFO"}
        servers = rig.servers(1)
        with rig.workers(servers, settings) as (worker,), rig.producer() as app:
            for single in chosen:
                servers[0].clear()
                done = _run(rig, single, app, worker)
                median = sorted(job.overhead for job in done.jobs)[len(done.jobs) // 2]
                tell(
                    f"{len(done.jobs)} single jobs of {single.seconds} s, S3 {single.s3_ms} ms: "
                    f"{1000 * median:.0f} ms beyond execution and two requests"
                )
                yield done


def _run(rig: Rig, single: Single, app: Celery, worker: ChildProcess) -> SingleRun:
    rig.relay.seconds = single.s3_ms / 1000
    # The first one opens connections.
    _job(rig, single, app)
    done = [_job(rig, single, app) for _ in range(single.jobs)]
    # By then the worker has told of the last one, too.
    time.sleep(max(_IDLE_SECONDS))
    told = marks_in(worker.log.read_text(errors="replace"))
    return SingleRun(
        single,
        tuple(
            SingleJob(
                execution=marks["finished"] - marks["started"],
                total=marks["result"] - marks["queued"],
                s3_request=s3_request,
                marks={**marks, **told.get(job_id, {})},
            )
            for job_id, marks, s3_request in done
        ),
    )


def _job(rig: Rig, single: Single, app: Celery) -> tuple[str, dict[str, float], float]:
    """Do one; its id, the marks that are seen from outside, and a request's seconds."""
    (server,) = rig.servers(1)
    (workflow,) = rig.graphs.batch_of(1, single.seconds)
    time.sleep(random.uniform(*_IDLE_SECONDS))  # noqa: S311  # no secret
    s3_request = _probe(rig)
    queued = time.time()
    handle = app.send_task(TASK, kwargs={"workflow": workflow}, queue=QUEUE)
    told = handle.get(timeout=_PATIENCE_SECONDS)
    result = time.time()
    (execution,) = server.executions([told["prompt_id"]])
    marks = {
        "queued": queued,
        "started": execution.started,
        "finished": execution.ended,
        "result": result,
    }
    return handle.id, marks, s3_request


def _probe(rig: Rig) -> float:
    began = time.monotonic()
    bucket = rig.stack.seaweedfs.bucket
    rig.s3.put_object(Bucket=bucket, Key="bench/probe", Body=bytes(_PROBE_BYTES))
    return time.monotonic() - began
