"""What happens to jobs, counted."""

from prometheus_client import CollectorRegistry, Counter, Histogram

from tasks.errors import CancelledError, PermanentError, TransientError
from workers.metrics import catalog
from workers.metrics.catalog import Metric, leaves
from workers.observing import (
    AttemptBegan,
    AttemptEnded,
    Event,
    FileStored,
    JobEnded,
    JobSuppressed,
    JobTaken,
    StageEnded,
)


class JobMetrics:
    """Counts events. Thread-safe.

    Every series is there from the start: what appears with its first event shows no increase.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register what is counted."""

        def counter(metric: Metric) -> Counter:
            return Counter(metric.name, metric.meaning, tuple(metric.labels), registry=registry)

        stages = catalog.STAGES
        self._stages = Histogram(
            *(stages.name, stages.meaning, tuple(stages.labels)),
            buckets=catalog.BUCKETS,
            registry=registry,
        )
        self._jobs = counter(catalog.JOBS)
        self._attempts = counter(catalog.ATTEMPTS)
        self._retries = counter(catalog.RETRIES)
        self._redeliveries = counter(catalog.REDELIVERIES)
        self._takeovers = counter(catalog.TAKEOVERS)
        self._suppressed = counter(catalog.SUPPRESSED)
        self._prompts = counter(catalog.PROMPTS)
        self._files = counter(catalog.FILES)
        self._bytes = counter(catalog.BYTES)
        for metric, known in (
            (catalog.ATTEMPTS, self._attempts),
            (catalog.RETRIES, self._retries),
            (catalog.SUPPRESSED, self._suppressed),
            (catalog.PROMPTS, self._prompts),
            (stages, self._stages),
        ):
            for value in next(iter(metric.labels.values())):
                known.labels(value)
        self._jobs.labels("succeeded", "")
        for outcome, kind in (
            ("failed", TransientError),
            ("failed", PermanentError),
            ("cancelled", CancelledError),
        ):
            for error in leaves(kind):
                self._jobs.labels(outcome, error)

    def __call__(self, event: Event) -> None:
        """Count an event."""
        match event:
            case JobTaken():
                self._count_taken(event)
            case JobSuppressed(reason=reason):
                self._suppressed.labels(reason).inc()
            case AttemptBegan(start=start, models=models):
                self._attempts.labels(start).inc()
                if start == "submit":
                    self._prompts.labels(models).inc()
            case StageEnded(stage=stage, seconds=seconds):
                self._stages.labels(stage).observe(seconds)
            case FileStored(size_bytes=size):
                self._files.inc()
                self._bytes.inc(size)
            case AttemptEnded(error=error, again_in=again_in):
                if error is not None and again_in is not None:
                    self._retries.labels(type(error).__name__).inc()
            case JobEnded(outcome=outcome, error=error):
                self._jobs.labels(outcome, type(error).__name__ if error else "").inc()

    def _count_taken(self, taken: JobTaken) -> None:
        self._redeliveries.inc(taken.redelivered)
        self._takeovers.inc(taken.owner_died)
        if taken.is_new:
            # By two clocks, of which the producer's may be ahead.
            waited = max(0.0, taken.taken_at - taken.enqueued_at)
            self._stages.labels(catalog.QUEUED).observe(waited)
