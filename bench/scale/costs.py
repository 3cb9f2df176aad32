"""What a job and an idle worker cost the broker, the store and the machine."""

import time
from collections.abc import Mapping

from bench.contenders import Queued
from bench.model import QUEUE, TASK
from bench.rig import Rig, Tell
from bench.scale.commands import listening
from bench.scale.model import Costs
from bench.scale.usage import Meter, resident_bytes

_SECONDS = 0.1
_S3_SECONDS = 0.005
_IDLE_SECONDS = 20.0
# Jobs before anything is measured.
_FIRST = 20


def run_costs(rig: Rig, jobs: int, tell: Tell) -> Costs:
    """Watch a worker that has nothing to do, and then one that does so many jobs."""
    rig.relay.seconds = _S3_SECONDS
    with rig.workers(rig.servers(1)) as (worker,), rig.producer() as app:
        one = Queued(app, TASK, QUEUE)
        one.run(rig.graphs.batch_of(_FIRST, _SECONDS))
        groups = {"worker": [worker.pid], "broker": [rig.stack.valkey.process.pid]}
        # Listening costs the broker: commands are heard at one time, CPU is measured at another.
        tell(f"{2 * _IDLE_SECONDS:.0f} s of an idle worker")
        with listening(rig.stack.valkey.url) as idle:
            time.sleep(_IDLE_SECONDS)
        meter = Meter(groups)
        time.sleep(_IDLE_SECONDS)
        cores, rss = meter.cores(), resident_bytes(worker.pid)
        tell(f"what {jobs} jobs cost")
        began = time.monotonic()
        with listening(rig.stack.valkey.url) as busy:
            one.run(rig.graphs.batch_of(jobs, _SECONDS))
        seconds = time.monotonic() - began
        rig.relay.requests.clear()
        meter = Meter(groups)
        one.run(rig.graphs.batch_of(jobs, _SECONDS))
        cpu, measured = meter.cpu_seconds(), meter.seconds
        requests = rig.relay.requests
    idle_commands = _times(idle.sent, 1 / _IDLE_SECONDS)
    sent = _beyond(busy.sent, _times(idle_commands, seconds))
    in_scripts = _beyond(busy.in_scripts, _times(idle.in_scripts, seconds / _IDLE_SECONDS))
    return Costs(
        jobs=jobs,
        commands_a_job=_times(sent, 1 / jobs),
        script_commands_a_job=sum(in_scripts.values()) / jobs,
        idle_commands_a_second=idle_commands,
        broker_cpu_a_job=(cpu["broker"] - cores["broker"] * measured) / jobs,
        broker_cpu_idle=cores["broker"],
        worker_cpu_a_job=(cpu["worker"] - cores["worker"] * measured) / jobs,
        worker_cpu_idle=cores["worker"],
        worker_rss_idle=rss,
        s3_requests_a_job=_times(requests, 1 / jobs),
    )


def _times(counts: Mapping[str, float], factor: float) -> dict[str, float]:
    return {name: count * factor for name, count in sorted(counts.items())}


def _beyond(counts: Mapping[str, float], idle: Mapping[str, float]) -> dict[str, float]:
    """What jobs have caused: which of its polls a busy worker leaves out differs."""
    return {name: max(0.0, count - idle.get(name, 0.0)) for name, count in counts.items()}
