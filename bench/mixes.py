"""Long and short jobs in one queue, on several servers."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from bench.cells import turned
from bench.contenders import contender
from bench.model import Kind, Mix, MixRun
from bench.rig import Rig, Tell
from bench.servers import Server


def run_mixes(rig: Rig, mixes: Sequence[Mix], tell: Tell) -> Iterator[MixRun]:
    """Each contender in turn, with workers of its own for each time."""
    for mix in mixes:
        half = mix.servers // 2
        what = f"{half * mix.shorts} x {mix.short_seconds} s beside {half} x {mix.long_seconds} s"
        for repetition in range(mix.repeat):
            for kind in turned(mix.kinds, repetition):
                seconds = _run(rig, mix, kind)
                tell(f"{kind:10} {what} on {mix.servers} servers: {seconds:.3f} s")
                yield MixRun(mix, kind, repetition, seconds)


def _run(rig: Rig, mix: Mix, kind: Kind) -> float:
    """Seconds from the sending until the last short job has its result."""
    servers = rig.servers(mix.servers)
    rig.relay.seconds = mix.s3_ms / 1000
    half = mix.servers // 2
    with contender(kind, rig, servers) as one, _stopping_the_rest(servers):
        one.run(rig.graphs.batch_of(2 * mix.servers, mix.short_seconds / 10))
        longs = rig.graphs.batch_of(half, mix.long_seconds)
        shorts = rig.graphs.batch_of(half * mix.shorts, mix.short_seconds)
        sent = time.time()
        results = one.run([*longs, *shorts], unawaited=half)
        return max(result.at for result in results) - sent


@contextmanager
def _stopping_the_rest(servers: Sequence[Server]) -> Iterator[None]:
    """Leave nothing that runs: who waits for a long job must hear of its end."""
    for server in servers:
        server.clear()
    try:
        yield
    finally:
        for server in servers:
            server.clear()
