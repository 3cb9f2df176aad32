"""Fleets of growing size, each server with a worker of its own."""

from collections.abc import Iterator, Sequence

from bench.contenders import Limit, Queued
from bench.figures import throughput
from bench.model import QUEUE, TASK
from bench.rig import Rig, Tell
from bench.scale.model import Throughput
from bench.scale.usage import Meter

_SECONDS = 1.0
_S3_SECONDS = 0.25


def run_throughput(rig: Rig, sizes: Sequence[int], jobs: int, tell: Tell) -> Iterator[Throughput]:
    """Have fleets of these sizes do so many jobs a worker."""
    rig.relay.seconds = _S3_SECONDS
    one_server = _limit(rig, jobs)
    for size in sizes:
        tell(f"{size} workers, {size * jobs} jobs of {_SECONDS:g} s")
        servers = rig.servers(size)
        with rig.workers(servers) as workers, rig.producer() as app:
            fleet = Queued(app, TASK, QUEUE)
            fleet.run(rig.graphs.batch_of(2 * size, 0.1))
            for server in servers:
                server.clear()
            meter = Meter(
                {
                    "workers": [worker.pid for worker in workers],
                    "servers": [one.process.pid for one in rig.stand_ins[:size]],
                    "broker": [rig.stack.valkey.process.pid],
                    "store": [rig.stack.seaweedfs.process.pid],
                }
            )
            fleet.run(rig.graphs.batch_of(size * jobs, _SECONDS))
            cores, cpu = meter.cores(), meter.cpu_seconds()
            done = [one for server in servers for one in server.all_executions()]
        a_second = throughput(done)
        yield Throughput(
            workers=size,
            a_second=a_second,
            of_linear=a_second / (size * one_server),
            cores=cores,
            cpu_a_job={name: seconds / len(done) for name, seconds in cpu.items()},
        )


def _limit(rig: Rig, jobs: int) -> float:
    (server,) = rig.servers(1)
    server.clear()
    Limit([server]).run(rig.graphs.batch_of(jobs, _SECONDS))
    return throughput(server.all_executions())
