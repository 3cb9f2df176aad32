"""What is counted of events, and what is read of a worker."""

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from tasks import errors
from tasks.errors import (
    BrokerUnavailableError,
    JobError,
    JobExpiredError,
    NodeFailedError,
    OutOfMemoryError,
)
from workers.broker.backlog import Backlog
from workers.health.asking import Asking
from workers.ledger.servers import Device, Server
from workers.metrics import catalog
from workers.metrics.gpu import GpuSeconds, GpuTime
from workers.metrics.jobs import JobMetrics
from workers.metrics.worker import Sources, WorkerMetrics
from workers.observing import (
    AttemptBegan,
    AttemptEnded,
    Event,
    FileStored,
    JobEnded,
    JobSuppressed,
    JobTaken,
    StageEnded,
    WebhookTried,
)
from workers.routing.stats import read_stats

SERVER = Server(
    place="p",
    instance="http://gpu:8188",
    worker="w",
    version="0.8.0",
    digest="d",
    takes_jobs=True,
    devices=(
        Device(name="cuda:0", kind="cuda", vram_total_bytes=24, vram_free_bytes=5),
        Device(name="cpu", kind="cpu"),
    ),
    ram_total_bytes=64,
    ram_free_bytes=7,
)


def taken(**fields: Any) -> JobTaken:
    given = {"enqueued_at": 100.0, "taken_at": 103.0, "is_new": True, "redelivered": False}
    return JobTaken("job", **{**given, **fields})


def began(**fields: Any) -> AttemptBegan:
    given = {"number": 1, "prompt_id": "p", "instance": "http://here", "start": "submit"}
    return AttemptBegan("job", **{**given, **fields})


def increases(*events: Event) -> dict[str, float]:
    """What is not 0 after these, as it is scraped; of histograms no buckets."""
    registry = CollectorRegistry()
    count = JobMetrics(registry)
    for event in events:
        count(event)
    return scraped(registry)


def scraped(registry: CollectorRegistry) -> dict[str, float]:
    samples = [sample for family in registry.collect() for sample in family.samples]
    return {
        " ".join((sample.name, *sample.labels.values())): sample.value
        for sample in samples
        if sample.value and not sample.name.endswith(("_bucket", "_created"))
    }


def test_the_errors_are_those_that_jobs_end_with() -> None:
    concrete = {
        name
        for name, one in vars(errors).items()
        if isinstance(one, type) and issubclass(one, JobError) and not one.__subclasses__()
    }
    assert {*catalog.leaves(JobError)} == concrete
    assert {*catalog.JOBS.labels["error"]} == {"", *concrete}


@pytest.mark.parametrize(
    ("event", "counted"),
    [
        (JobEnded("job", "succeeded"), {"comfyfleet_jobs_total succeeded ": 1}),
        (
            JobEnded("job", "failed", NodeFailedError("it raised")),
            {"comfyfleet_jobs_total failed NodeFailedError": 1},
        ),
        (
            JobEnded("job", "cancelled", JobExpiredError("too late")),
            {"comfyfleet_jobs_total cancelled JobExpiredError": 1},
        ),
        (JobSuppressed("job", "held"), {"comfyfleet_duplicates_suppressed_total held": 1}),
        (
            WebhookTried("job", "job.failed", "given up", 410, seconds=0.5),
            {"comfyfleet_webhook_attempts_total given up": 1},
        ),
        (
            began(models="cold"),
            {"comfyfleet_attempts_total submit": 1, "comfyfleet_prompts_total cold": 1},
        ),
        # It begins no prompt.
        (began(start="adopt", models="warm"), {"comfyfleet_attempts_total adopt": 1}),
        (
            AttemptEnded("job", 1, OutOfMemoryError("full"), again_in=2.0),
            {"comfyfleet_retries_total OutOfMemoryError": 1},
        ),
        (AttemptEnded("job", 1, NodeFailedError("it raised")), {}),
        (AttemptEnded("job", 1), {}),
        (
            FileStored("job", "9", "key", size_bytes=512, ended_at=1.0, seconds=0.1),
            {"comfyfleet_uploaded_files_total": 1, "comfyfleet_uploaded_bytes_total": 512},
        ),
        (
            StageEnded("job", "uploading", ended_at=1.0, seconds=0.25),
            {
                "comfyfleet_stage_duration_seconds_count uploading": 1,
                "comfyfleet_stage_duration_seconds_sum uploading": 0.25,
            },
        ),
        (
            taken(),
            {
                "comfyfleet_stage_duration_seconds_count queued": 1,
                "comfyfleet_stage_duration_seconds_sum queued": 3.0,
            },
        ),
        # The producer's clock is ahead.
        (taken(taken_at=99.0), {"comfyfleet_stage_duration_seconds_count queued": 1}),
        (
            taken(is_new=False, redelivered=True, owner_died=True),
            {"comfyfleet_redeliveries_total": 1, "comfyfleet_takeovers_total": 1},
        ),
    ],
    ids=repr,
)
def test_an_event_counts_where_it_belongs(event: Event, counted: dict[str, float]) -> None:
    assert increases(event) == counted


def test_every_series_is_there_before_its_first_event() -> None:
    registry = CollectorRegistry()
    JobMetrics(registry)
    there = {
        (sample.name, *sample.labels.values())
        for family in registry.collect()
        for sample in family.samples
    }
    for metric in (catalog.RETRIES, catalog.ATTEMPTS, catalog.PROMPTS, catalog.SUPPRESSED):
        (values,) = metric.labels.values()
        assert {(metric.name, value) for value in values} <= there
    assert ("comfyfleet_jobs_total", "cancelled", "JobExpiredError") in there
    assert ("comfyfleet_stage_duration_seconds_count", "queued") in there


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_the_gpu_is_busy_while_a_prompt_executes_and_idle_while_one_could() -> None:
    clock, executes, takes = Clock(), False, False
    gpu = GpuTime(lambda: executes, lambda: takes, clock)

    def after(seconds: float) -> GpuSeconds:
        clock.now += seconds
        return gpu.look()

    assert after(5) == (0, 0)
    takes = True
    assert after(1) == (0, 0)
    executes = True
    assert after(2) == (0, 2)
    # A long prompt counts while it executes, not at its end.
    assert after(3) == (3, 2)
    # What it began it ends, whatever the worker takes.
    takes = False
    assert after(4) == (7, 2)
    executes = False
    assert after(1) == (8, 2)
    assert after(9) == (8, 2)


def asking(answer: Callable[[], Any]) -> Asking[Any]:
    return Asking(answer, every=5.0, wait=10.0)


def unreachable() -> Any:
    raise BrokerUnavailableError("away")


def sources(**fields: Any) -> Sources:
    given: dict[str, Any] = {
        "slots": 12,
        "jobs": lambda: 3,
        "gpu": lambda: GpuSeconds(2.5, 1.5),
        "is_open": lambda: True,
        "checks": {"store": lambda: "it is away", "broker": lambda: ""},
        "server": lambda: SERVER,
        "answers": lambda: True,
        "backlog": asking(lambda: Backlog({"0": 2, "9": 4}, 12.5, 5)),
        "dead_letters": asking(lambda: 1),
    }
    return Sources(**{**given, **fields})


def read(**fields: Any) -> dict[str, float]:
    registry = CollectorRegistry()
    registry.register(WorkerMetrics(sources(**fields)))
    found = {
        " ".join((sample.name, *sample.labels.values())): sample.value
        for family in registry.collect()
        for sample in family.samples
    }
    return {name.removeprefix("comfyfleet_"): value for name, value in found.items()}


def test_a_worker_tells_what_it_has_and_sees() -> None:
    told = read()
    assert told.pop(next(name for name in told if name.startswith("build_info"))) == 1
    assert told == {
        "gpu_busy_seconds_total": 2.5,
        "gpu_idle_seconds_total": 1.5,
        "circuit_open": 1,
        "slots": 12,
        "slots_used": 3,
        "reachable store": 0,
        "reachable broker": 1,
        "queue_depth 0": 2,
        "queue_depth 9": 4,
        "queue_oldest_age_seconds": 12.5,
        "queue_taken": 5,
        "dead_letters": 1,
        "server_info http://gpu:8188 0.8.0": 1,
        "comfyui_ram_total_bytes": 64,
        "comfyui_ram_free_bytes": 7,
        "comfyui_vram_total_bytes 0": 24,
        "comfyui_vram_free_bytes 0": 5,
    }


def test_what_cannot_be_told_now_is_left_out() -> None:
    told = read(
        answers=lambda: False, backlog=asking(unreachable), dead_letters=asking(unreachable)
    )
    gone = ("queue_", "dead_", "comfyui_")
    assert not [name for name in told if name.startswith(gone)]
    assert told["slots"] == 12


def test_whatever_a_server_says_of_itself_can_be_scraped() -> None:
    gpu = {"name": "x" * 1_000_000, "vram_total": 10**400, "vram_free": -1}
    said = {
        "system": {"comfyui_version": "1\ud800", "ram_total": 10**400},
        "devices": [gpu] * 10_000,
    }
    stats = read_stats(said)
    server = Server(
        place="p", instance="http://gpu", worker="w", digest="", takes_jobs=True, **vars(stats)
    )
    assert len(server.model_dump_json()) < 20_000
    registry = CollectorRegistry()
    registry.register(WorkerMetrics(sources(server=lambda: server)))
    assert b'version="1?"' in generate_latest(registry)


@pytest.mark.parametrize(
    ("backlog", "age"),
    [
        (Backlog({"0": 0}, None, 0), 0.0),
        # The broker does not tell how old they are.
        (Backlog({"all": 3}, None, 0), None),
    ],
)
def test_nothing_that_waits_has_no_age(backlog: Backlog, age: float | None) -> None:
    assert read(backlog=asking(lambda: backlog)).get("queue_oldest_age_seconds") == age


def test_who_is_not_watched_does_not_load_it() -> None:
    code = "import sys, workers.lifecycle.worker; assert 'prometheus_client' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_events_cost_next_to_nothing() -> None:
    count = JobMetrics(CollectorRegistry())
    began_at = time.process_time()
    for _ in range(1000):
        count(StageEnded("job", "staging", ended_at=1.0, seconds=0.25))
    assert time.process_time() - began_at < 1.0
