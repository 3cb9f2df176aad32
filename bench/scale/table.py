"""The scale report in Markdown."""

from bench.scale.capacity import BROKER_SHARE, carried, carried_like
from bench.scale.model import Backlog, Costs, Memory, ScaleReport, Throughput
from bench.table import rows

_JOB_SECONDS = (0.3, 1.0, 5.0, 30.0)


def markdown(report: ScaleReport) -> str:
    """The whole report."""
    facts = ", ".join(f"{name} {value}" for name, value in report.machine.items())
    parts = [f"Measured by `python -m bench scale` in {report.seconds:.0f} s: {facts}."]
    if report.throughput:
        parts += _throughput(report.throughput, int(report.machine["cores"]))
    if report.backlog:
        parts += _backlog(report.backlog)
    if report.costs:
        parts += _costs(report.costs)
    if report.memory:
        parts += _memory(report.memory)
    if report.costs:
        parts += _capacity(report.costs, report.memory)
    if report.throughput:
        fleet = report.throughput[-1]
        parts.append(
            f"By what the broker needed for {fleet.workers} workers with jobs of 1 s, "
            f"{fleet.cores['broker']:.2f} cores, it would carry {carried_like(fleet):,} of them."
        )
    return "\n\n".join(parts) + "\n"


def _throughput(found: tuple[Throughput, ...], cores: int) -> list[str]:
    names = list(found[0].cores)
    body = [
        [
            f"{one.workers}",
            f"{one.a_second:.2f}",
            f"{one.of_linear:.3f}",
            *(f"{one.cores[name]:.2f}" for name in names),
            f"{sum(one.cores.values()):.2f}",
            f"{1000 * sum(one.cpu_a_job.values()):.0f}",
        ]
        for one in found
    ]
    head = ["workers", "jobs/s", "of linear", *(f"{name}, cores" for name in names), "all, cores"]
    most = cores / sum(found[-1].cpu_a_job.values())
    return [
        "Jobs of 1 s, each worker with a stand-in server, all on this machine:",
        rows([*head, "CPU ms a job"], body),
        (
            f"At the last row's CPU time a job, {cores} cores are used up at {most:.0f} jobs/s, "
            "servers, store and producer included."
        ),
    ]


def _backlog(found: Backlog) -> list[str]:
    before, after = found.short
    ratio = 2 * found.long.a_second / (before.a_second + after.a_second)
    body = [
        [f"{one.waiting:,}", f"{one.seconds:.2f} s", f"{one.a_second:.3f}"]
        for one in (before, found.long, after)
    ]
    return [
        (
            f"A queue of {found.long.waiting:,} jobs: messages of {found.message_bytes:,} bytes, "
            f"sent at {found.sent_a_second:,.0f} a second by one producer, each "
            f"{found.memory_a_job:,.0f} bytes of the broker's memory. A worker that is started "
            "there, and its first jobs of 0.1 s:"
        ),
        rows(["waiting jobs", "from the worker's start to an execution's", "jobs/s"], body),
        f"Throughput at the long queue: {ratio:.3f} of that at the short ones.",
    ]


def _costs(found: Costs) -> list[str]:
    busy, idle = found.commands_a_job, found.idle_commands_a_second
    names = sorted({*busy, *idle})
    body = [[name, f"{busy.get(name, 0):.2f}", f"{idle.get(name, 0):.2f}"] for name in names]
    body.append(["all", f"{sum(busy.values()):.1f}", f"{sum(idle.values()):.1f}"])
    requests = ", ".join(f"{n:.2f} {name}" for name, n in found.s3_requests_a_job.items())
    return [
        (
            f"Commands that reach the broker, over {found.jobs} jobs; its scripts run "
            f"{found.script_commands_a_job:.1f} more a job inside it:"
        ),
        rows(["command", "a job", "an idle worker, a second"], body),
        rows(
            ["", "a job", "idle"],
            [
                [
                    "broker, CPU",
                    f"{1000 * found.broker_cpu_a_job:.2f} ms",
                    f"{found.broker_cpu_idle:.2%} of a core",
                ],
                [
                    "worker, CPU",
                    f"{1000 * found.worker_cpu_a_job:.1f} ms",
                    f"{found.worker_cpu_idle:.1%} of a core",
                ],
                ["worker, memory", "", f"{found.worker_rss_idle / 1e6:.0f} MB"],
                ["requests to the store", requests, ""],
            ],
        ),
    ]


def _memory(found: Memory) -> list[str]:
    kept = ", ".join(
        f"{name} {size:,.0f} bytes for {seconds / 3600:,.0f} h"
        for name, (size, seconds) in found.kept.items()
    )
    grown = f"{found.rss[min(found.rss)] / 1e6:.1f} to {found.rss[max(found.rss)] / 1e6:.1f} MB"
    return [
        (
            f"Memory over {found.jobs} jobs: the worker goes from {grown}, "
            f"{found.worker_bytes_a_job:,.0f} bytes a job over the second half; the broker keeps "
            f"{found.broker_bytes_a_job:,.0f} bytes of a job that has ended ({kept})."
        )
    ]


def _capacity(costs: Costs, memory: Memory | None) -> list[str]:
    body = [
        [
            f"{one.job_seconds:g} s",
            f"{one.workers:,}",
            f"{one.jobs_a_second:,.0f}",
            f"{one.kept_bytes / 1e9:,.1f} GB",
        ]
        for one in (carried(seconds, costs, memory) for seconds in _JOB_SECONDS)
    ]
    return [
        (
            f"What one broker carries when {BROKER_SHARE:.0%} of its core may be used, calculated "
            "from its CPU time a job and an idle worker:"
        ),
        rows(["jobs of", "busy workers", "jobs/s", "kept results and ends"], body),
        *_kept(memory),
    ]


def _kept(memory: Memory | None) -> list[str]:
    if memory is None:
        return []
    sizes = {name: size * seconds / 1e9 for name, (size, seconds) in memory.kept.items()}
    parts = ", ".join(f"{size:.2f} GB of {name}" for name, size in sizes.items())
    return [f"Each job a second that never stops keeps {sum(sizes.values()):.2f} GB: {parts}."]
