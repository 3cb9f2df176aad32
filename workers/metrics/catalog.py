"""Every metric: its name, its labels with all the values that they can have, and its meaning."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from tasks import errors
from tasks.errors import CancelledError, JobError, PermanentError, TransientError
from workers.observing.events import Stage

BUCKETS = (
    *(0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0),
    *(60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0),
)
"""Seconds: from what is answered from a cache to an hour of video."""

QUEUED = "queued"


def leaves(kind: type[JobError]) -> tuple[str, ...]:
    """The names of all errors of a kind that jobs end with."""
    return tuple(sorted(_leaves(kind)))


def _leaves(kind: type[JobError]) -> Iterator[str]:
    below = kind.__subclasses__()
    if not below and kind.__module__ == errors.__name__:
        yield kind.__name__
    for one in below:
        yield from _leaves(one)


@dataclass(frozen=True)
class Metric:
    """A metric.

    Attributes:
        name: as it is scraped, with its unit.
        kind: of Prometheus.
        meaning: for people.
        labels: by name, each with all values that it can have, or what they are.
        of_fleet: whether every worker tells the same of the whole fleet.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    meaning: str
    labels: Mapping[str, tuple[str, ...] | str] = field(default_factory=dict)
    of_fleet: bool = False


_FAILURES = (*leaves(TransientError), *leaves(PermanentError))

JOBS = Metric(
    "comfyfleet_jobs_total",
    "counter",
    "Jobs that have ended here, and with which error if they did not succeed.",
    {
        "outcome": ("succeeded", "failed", "cancelled"),
        "error": ("", *sorted((*_FAILURES, *leaves(CancelledError)))),
    },
)
ATTEMPTS = Metric(
    "comfyfleet_attempts_total",
    "counter",
    "Attempts begun: with a prompt of their own, by adopting one that waits, runs or has ended on "
    "this server, or by collecting the files of one that has ended on another.",
    {"start": ("submit", "adopt", "collect")},
)
RETRIES = Metric(
    "comfyfleet_retries_total",
    "counter",
    "Attempts that failed and are followed by another one.",
    {"error": leaves(TransientError)},
)
REDELIVERIES = Metric(
    "comfyfleet_redeliveries_total",
    "counter",
    "Jobs taken whose message a worker had before: after a retry, handed back, or left behind.",
)
TAKEOVERS = Metric(
    "comfyfleet_takeovers_total",
    "counter",
    "Jobs taken over from a worker that vanished.",
)
SUPPRESSED = Metric(
    "comfyfleet_duplicates_suppressed_total",
    "counter",
    "Messages of jobs that are not run again: somebody has the job, or it pauses (held), or it has "
    "ended.",
    {"reason": ("held", "ended")},
)
STAGES = Metric(
    "comfyfleet_stage_duration_seconds",
    "histogram",
    "How long stages took: queued from enqueue until a worker first has the job; executing with "
    "the time in ComfyUI's own queue.",
    {"stage": (QUEUED, *get_args(Stage))},
)
PROMPTS = Metric(
    "comfyfleet_prompts_total",
    "counter",
    "Prompts begun, by whether the server had their large models loaded; not known where there is "
    "one server alone.",
    {"models": ("warm", "cold", "unknown")},
)
FILES = Metric("comfyfleet_uploaded_files_total", "counter", "Output files stored.")
BYTES = Metric("comfyfleet_uploaded_bytes_total", "counter", "Size of the output files stored.")
WEBHOOKS = Metric(
    "comfyfleet_webhook_attempts_total",
    "counter",
    "Tries to tell a webhook of a job: delivered, postponed to another try, or given up.",
    {"outcome": ("delivered", "postponed", "given up")},
)
BUSY = Metric(
    "comfyfleet_gpu_busy_seconds_total",
    "counter",
    "Time in which the server executes a prompt of this worker.",
)
IDLE = Metric(
    "comfyfleet_gpu_idle_seconds_total",
    "counter",
    "Time in which it executes none though the worker takes jobs.",
)
CIRCUIT = Metric(
    "comfyfleet_circuit_open",
    "gauge",
    "1 while no jobs are taken as the server is away, hangs or takes no prompts.",
)
SLOTS = Metric("comfyfleet_slots", "gauge", "Jobs that the worker can have at most.")
USED = Metric("comfyfleet_slots_used", "gauge", "Jobs that it has.")
REACHABLE = Metric(
    "comfyfleet_reachable",
    "gauge",
    "1 for each part that the worker reaches, as `/readyz` tells.",
    {"part": ("comfyui", "broker", "ledger", "store")},
)
SERVER = Metric(
    "comfyfleet_server_info",
    "gauge",
    "1, with the ComfyUI server that the worker drives.",
    {"server": "its base URL", "version": "of ComfyUI"},
)
BUILD = Metric(
    "comfyfleet_build_info",
    "gauge",
    "1, with what the worker runs on.",
    {"version": "of comfyfleet", "python": "its version"},
)
RAM_TOTAL = Metric("comfyfleet_comfyui_ram_total_bytes", "gauge", "Memory of the server's host.")
RAM_FREE = Metric(
    "comfyfleet_comfyui_ram_free_bytes", "gauge", "Of it free, at most half a minute ago."
)
_DEVICE: Mapping[str, str] = {"device": "number of the GPU, as the server counts them"}
VRAM_TOTAL = Metric("comfyfleet_comfyui_vram_total_bytes", "gauge", "Memory of a GPU.", _DEVICE)
VRAM_FREE = Metric(
    "comfyfleet_comfyui_vram_free_bytes",
    "gauge",
    "Of it free, at most half a minute ago.",
    _DEVICE,
)
DEPTH = Metric(
    "comfyfleet_queue_depth",
    "gauge",
    "Jobs that wait in the broker, lanes included.",
    {"priority": "as the broker has it"},
    of_fleet=True,
)
OLDEST = Metric(
    "comfyfleet_queue_oldest_age_seconds",
    "gauge",
    "For how long the oldest of them has waited; 0 if none waits. RabbitMQ does not tell.",
    of_fleet=True,
)
TAKEN = Metric(
    "comfyfleet_queue_taken",
    "gauge",
    "Jobs whose messages workers have.",
    of_fleet=True,
)
DEAD = Metric(
    "comfyfleet_dead_letters",
    "gauge",
    "Jobs that were put aside (`comfyfleet dead list`).",
    of_fleet=True,
)

METRICS = (
    *(JOBS, ATTEMPTS, RETRIES, REDELIVERIES, TAKEOVERS, SUPPRESSED, STAGES, PROMPTS),
    *(FILES, BYTES, WEBHOOKS, BUSY, IDLE, CIRCUIT, SLOTS, USED, REACHABLE),
    *(DEPTH, OLDEST, TAKEN, DEAD),
    *(RAM_TOTAL, RAM_FREE, VRAM_TOTAL, VRAM_FREE, SERVER, BUILD),
)
