"""What one broker carries, and how that is told."""

import pytest

from bench.scale.capacity import BROKER_SHARE, carried
from bench.scale.model import Backlog, Costs, Memory, ScaleReport, Start, Throughput
from bench.scale.table import markdown

COSTS = Costs(
    jobs=100,
    commands_a_job={"EVALSHA": 4.0, "GET": 1.0},
    script_commands_a_job=20.0,
    idle_commands_a_second={"EVAL": 5.0},
    broker_cpu_a_job=0.002,
    broker_cpu_idle=0.001,
    worker_cpu_a_job=0.02,
    worker_cpu_idle=0.003,
    worker_rss_idle=100_000_000,
    s3_requests_a_job={"PUT": 2.0},
)
MEMORY = Memory(100, {10: 100, 100: 200}, 1.1, 2000.0, {"result": (1000.0, 3600.0)})


def test_a_broker_carries_what_its_core_allows() -> None:
    found = carried(1.0, COSTS, MEMORY)
    assert found.workers == int(BROKER_SHARE / 0.003)
    assert found.kept_bytes == pytest.approx(found.workers * 1000 * 3600)
    assert carried(30.0, COSTS, None).workers > found.workers
    assert carried(30.0, COSTS, None).kept_bytes == 0


def test_the_report_tells_what_was_measured_and_nothing_else() -> None:
    parts = {"throughput": (), "backlog": None, "costs": None, "memory": None}
    facts = {"machine": {"cores": 2}, "seconds": 1.0}
    assert "|" not in markdown(ScaleReport(**{**parts, **facts}))
    measured = {
        "throughput": (
            Throughput(4, 3.9, 0.975, {"workers": 0.2, "broker": 0.04}, {"workers": 0.05}),
        ),
        "backlog": Backlog(
            1400,
            500.0,
            1450.0,
            (Start(1000, 1.5, 9.0), Start(1000, 1.5, 8.8)),
            Start(100_000, 1.6, 8.9),
        ),
        "costs": COSTS,
        "memory": MEMORY,
    }
    text = markdown(ScaleReport(**{**measured, **facts}))
    assert "| 4 | 3.90 | 0.975 | 0.20 | 0.04 | 0.24 | 50 |" in text
    assert "2 cores are used up at 40 jobs/s" in text
    assert "1.000 of that at the short ones" in text
    assert "| all | 5.0 | 5.0 |" in text
    assert "result 1,000 bytes for 1 h" in text
    assert "never stops keeps 0.00 GB: 0.00 GB of result" in text
    assert "0.04 cores, it would carry 60 of them" in text
