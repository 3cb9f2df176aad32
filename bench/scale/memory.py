"""A worker that does many jobs: what it holds, and what the broker keeps of each."""

from collections.abc import Mapping

from bench.contenders import Queued
from bench.figures import slope
from bench.model import QUEUE, TASK
from bench.rig import Rig, Tell
from bench.scale.model import Memory
from bench.scale.usage import resident_bytes

_SECONDS = 0.02
_POINTS = 10
# So many of the points are left out while buffers and caches fill: Celery keeps a thousand ids.
_FIRST = 5

_FAMILIES = {"result": "celery-task-meta-*", "ledger": "comfyfleet:job:*"}
_SAMPLES = 20


def run_memory(rig: Rig, jobs: int, tell: Tell) -> Memory:
    """Have one worker do so many jobs."""
    rig.relay.seconds = 0.0
    with rig.workers(rig.servers(1)) as (worker,), rig.producer() as app:
        one = Queued(app, TASK, QUEUE)
        one.run(rig.graphs.batch_of(_POINTS, _SECONDS))
        before = rig.used_memory()
        rss: dict[int, int] = {}
        for point in range(1, _POINTS + 1):
            one.run(rig.graphs.batch_of(jobs // _POINTS, _SECONDS))
            rss[point * (jobs // _POINTS)] = resident_bytes(worker.pid)
            tell(f"{point * (jobs // _POINTS)} jobs: {rss[max(rss)] / 1e6:.1f} MB")
        kept = rig.used_memory() - before
        return Memory(
            jobs=max(rss),
            rss=rss,
            worker_bytes_a_job=slope(list(rss.items())[_FIRST:]),
            broker_bytes_a_job=kept / max(rss),
            kept=_kept(rig),
        )


def _kept(rig: Rig) -> Mapping[str, tuple[float, float]]:
    found = {}
    for family, pattern in _FAMILIES.items():
        keys = [key for _, key in zip(range(_SAMPLES), rig.redis.scan_iter(pattern), strict=False)]
        if keys:
            sizes = [rig.redis.memory_usage(key) for key in keys]
            seconds = max(rig.redis.ttl(key) for key in keys)
            found[family] = (sum(sizes) / len(sizes), float(seconds))
    return found
