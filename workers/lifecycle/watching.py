"""Metrics and health of a worker over HTTP; only workers that are watched import this."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, ProcessCollector, disable_created_metrics
from prometheus_client.exposition import choose_encoder

from settings import Settings, SettingsError
from workers.broker.backlog import read_backlog
from workers.broker.pulse import broker_trouble
from workers.execution.keeper import Phase
from workers.health.asking import Asking
from workers.health.endpoint import Endpoint, Page
from workers.health.pulse import Pulse, turning
from workers.health.report import Check, answering, health_pages
from workers.metrics.gpu import GpuTime
from workers.metrics.jobs import JobMetrics
from workers.metrics.worker import Sources, WorkerMetrics

if TYPE_CHECKING:
    from workers.bootstrap.parts import Parts

# Seconds for which an answer is good enough: how many jobs wait, and whether the store is there.
_BACKLOG_SECONDS = 5.0
_STORE_SECONDS = 10.0


class Watching:
    """What tells how a worker is."""

    def __init__(self, settings: Settings, port: int) -> None:
        """Bind the port; nobody is answered yet.

        Raises:
            SettingsError: it cannot be had.
        """
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._settings = settings
        self._endpoint = _bound(settings.metrics_host, port)
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self.observe = JobMetrics(self._registry)

    def wait(self, missing: Check) -> None:
        """Answer that the worker is well, and waits for a server; say why it has none."""
        health = health_pages({}, {"server": missing})
        self._endpoint.show({"/metrics": self._scraped, **health})

    def start(self, worker: Any, parts: "Parts", pulse: Pulse) -> None:
        """Answer from now on.

        Args:
            worker: Celery's, whose consumer need not be there yet.
            parts: of it.
            pulse: of that consumer's loop.
        """
        checks = _checks(worker, parts)
        self._registry.register(WorkerMetrics(self._sources(parts, checks)))

        def leaving() -> str:
            return "the worker is leaving" if parts.taking.leaving.begun else ""

        live = {"loop": turning(pulse, checks["broker"])}
        health = health_pages(live, {**checks, "worker": leaving})
        self._endpoint.show({"/metrics": self._scraped, **health})

    def close(self) -> None:
        """Answer no more."""
        self._endpoint.close()

    def _scraped(self, accepted: str) -> Page:
        encode, media_type = choose_encoder(accepted)
        return Page(200, media_type, encode(self._registry))

    def _sources(self, parts: "Parts", checks: Mapping[str, Check]) -> Sources:
        gpu = GpuTime(
            executes=lambda: Phase.EXECUTING in parts.taking.keeper.phases,
            takes_jobs=parts.taking.takes_jobs,
        )

        def look(*_: object) -> None:
            gpu.look()

        look()
        parts.taking.keeper.follow(look)
        parts.outside.circuit.subscribe(look)
        parts.outside.store_watch.subscribe(look)
        return Sources(
            slots=self._settings.worker_slots,
            jobs=lambda: len(parts.taking.keeper.phases),
            gpu=gpu.look,
            is_open=lambda: not parts.outside.circuit.closed,
            checks=checks,
            server=lambda: parts.taking.survey.server,
            answers=lambda: parts.outside.circuit.answers,
            backlog=Asking(lambda: read_backlog(self._settings), every=_BACKLOG_SECONDS),
            dead_letters=Asking(parts.outside.ledger.dead_letters.count, every=_BACKLOG_SECONDS),
        )


def _bound(host: str, port: int) -> Endpoint:
    try:
        return Endpoint(host, port)
    except OSError as error:
        raise SettingsError(
            f"METRICS_PORT: found {port}, which cannot be opened on {host} ({error.strerror}), "
            "expected a port that nothing else on this host listens on, such as another worker"
        ) from None


def _checks(worker: Any, parts: "Parts") -> Mapping[str, Check]:
    def comfyui() -> str:
        circuit = parts.outside.circuit
        return "" if circuit.closed else circuit.reason or "the server has not answered yet"

    def broker() -> str:
        return broker_trouble(getattr(worker, "consumer", None))

    def ledger() -> str:
        return "" if parts.taking.keeper.reaches_ledger else "Redis does not answer"

    there = answering(Asking(parts.outside.store.look, every=_STORE_SECONDS))

    def store() -> str:
        return (
            there()
            if parts.outside.store_watch.closed
            else "the store does not let this worker write"
        )

    return {"comfyui": comfyui, "broker": broker, "ledger": ledger, "store": store}
