"""What a worker is and has, read when it is scraped."""

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from workers.broker.backlog import Backlog
from workers.health.asking import Asking, NoAnswerError
from workers.health.report import Check
from workers.ledger.servers import Server
from workers.metrics import catalog
from workers.metrics.catalog import Metric
from workers.metrics.gpu import GpuSeconds
from workers.version import own_version

T = TypeVar("T")

Samples = Iterable[tuple[tuple[str, ...], float | None]]


@dataclass(frozen=True)
class Sources:
    """Where the numbers come from; each is asked whenever the worker is scraped.

    Attributes:
        slots: jobs that the worker can have.
        jobs: how many it has.
        gpu: how long its server has executed.
        is_open: whether the circuit is.
        checks: what `/readyz` looks at, by part.
        server: as other workers are told of it.
        answers: whether it does, so that what it tells of itself is true.
        backlog: what waits in the broker.
        dead_letters: how many there are.
    """

    slots: int
    jobs: Callable[[], int]
    gpu: Callable[[], GpuSeconds]
    is_open: Callable[[], bool]
    checks: Mapping[str, Check]
    server: Callable[[], Server]
    answers: Callable[[], bool]
    backlog: Asking[Backlog]
    dead_letters: Asking[int]


class WorkerMetrics(Collector):
    """Reads the sources. What cannot be told now is left out: a gap, and no old number."""

    def __init__(self, sources: Sources) -> None:
        """Take what is read."""
        self._sources = sources

    def describe(self) -> Iterable[Family]:
        """Prometheus' hook: nothing is read to be registered."""
        return ()

    def collect(self) -> Iterator[Family]:
        """Prometheus' hook: everything that can be told now."""
        sources = self._sources
        gpu = sources.gpu()
        yield _family(catalog.BUSY, [((), gpu.busy)])
        yield _family(catalog.IDLE, [((), gpu.idle)])
        yield _family(catalog.CIRCUIT, [((), sources.is_open())])
        yield _family(catalog.SLOTS, [((), sources.slots)])
        yield _family(catalog.USED, [((), sources.jobs())])
        yield _family(
            catalog.REACHABLE, [((part,), not check()) for part, check in sources.checks.items()]
        )
        yield _family(catalog.BUILD, [((own_version(), platform.python_version()), 1.0)])
        yield from self._of_fleet()
        server = sources.server()
        yield _family(catalog.SERVER, [((server.instance, server.version), 1.0)])
        if sources.answers():
            yield from _memory(server)

    def _of_fleet(self) -> Iterator[Family]:
        backlog = _answer(self._sources.backlog)
        if backlog is not None:
            depth = [((level,), float(jobs)) for level, jobs in backlog.waiting.items()]
            # Where jobs wait their age may still be unknown.
            age = None if any(backlog.waiting.values()) else 0.0
            oldest = backlog.oldest_seconds
            yield _family(catalog.DEPTH, depth)
            yield _family(catalog.OLDEST, [((), age if oldest is None else oldest)])
            yield _family(catalog.TAKEN, [((), backlog.taken)])
        yield _family(catalog.DEAD, [((), _answer(self._sources.dead_letters))])


def _memory(server: Server) -> Iterator[Family]:
    devices = [((str(number),), one) for number, one in enumerate(server.devices)]
    yield _family(catalog.RAM_TOTAL, [((), server.ram_total_bytes)])
    yield _family(catalog.RAM_FREE, [((), server.ram_free_bytes)])
    yield _family(catalog.VRAM_TOTAL, [(label, one.vram_total_bytes) for label, one in devices])
    yield _family(catalog.VRAM_FREE, [(label, one.vram_free_bytes) for label, one in devices])


def _family(metric: Metric, samples: Samples) -> Family:
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = kind(metric.name, metric.meaning, labels=tuple(metric.labels))
    for labels, value in samples:
        if value is not None:
            family.add_metric(labels, value)
    return family


def _answer(asking: Asking[T]) -> T | None:
    try:
        return asking.latest()
    except NoAnswerError:
        return None
