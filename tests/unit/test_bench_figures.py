"""From histories to numbers."""

import pytest

from bench.figures import Spread, execution_of, gaps, shares, slope, span, spread, throughput
from bench.model import BenchError, Cell, Execution, Kind, Run

CELL = Cell(1.0, 1, 250, 4, tuple(Kind), 2)


def executions(server: str, *times: tuple[float, float]) -> list[Execution]:
    return [Execution(server, f"{server}{at}", *both) for at, both in enumerate(times)]


def run(kind: Kind, repetition: int, seconds: float, cell: Cell = CELL) -> Run:
    return Run(cell, kind, repetition, seconds, 2 * seconds, 1.0, 0.0, {})


def test_the_server_says_when_a_prompt_was_executed() -> None:
    messages = [
        ["execution_start", {"prompt_id": "p", "timestamp": 1500}],
        ["execution_cached", {"nodes": [], "prompt_id": "p", "timestamp": 1501}],
        ["execution_success", {"prompt_id": "p", "timestamp": 2750}],
    ]
    entry = {"status": {"status_str": "success", "completed": True, "messages": messages}}
    assert execution_of("s", "p", entry) == Execution("s", "p", 1.5, 2.75)
    del messages[-1]
    with pytest.raises(BenchError, match="prompt p on s did not succeed"):
        execution_of("s", "p", entry)


def test_span_and_gaps_know_servers_apart() -> None:
    known = executions("a", (0.0, 1.0), (1.25, 2.0)) + executions("b", (0.5, 3.5))
    assert span(known) == 3.5
    assert gaps(reversed(known)) == [0.25]


def test_throughput_counts_shares_while_jobs_wait() -> None:
    # Until the last one begins at 2.0: two of a, and one and a half of b.
    known = executions("a", (0.0, 1.0), (1.0, 2.0), (2.0, 3.0))
    known += executions("b", (0.0, 1.0), (1.0, 3.0))
    assert throughput(known) == pytest.approx((2 + 1.5) / 2)


def test_a_server_that_idles_while_jobs_wait_costs_throughput() -> None:
    busy = executions("a", *((float(n), n + 1.0) for n in range(11)))
    assert throughput(busy + executions("b", (0.0, 1.0))) == pytest.approx(1.1)


def test_of_jobs_that_all_begin_at_once_there_is_no_throughput() -> None:
    with pytest.raises(BenchError, match="too few"):
        throughput(executions("a", (0.0, 1.0)))


def test_shares_are_paired_by_repetition() -> None:
    runs = [
        *(run(Kind.LIMIT, 0, 4.0), run(Kind.LIMIT, 1, 4.4)),
        *(run(Kind.SEQUENTIAL, 1, 8.8), run(Kind.SEQUENTIAL, 0, 10.0)),
        run(Kind.OURS, 2, 4.0),
        run(Kind.SEQUENTIAL, 0, 1.0, cell=Cell(0.1, 1, 250, 4, tuple(Kind), 2)),
    ]
    assert shares(runs, CELL, Kind.SEQUENTIAL, "span") == pytest.approx([0.5, 0.4])
    assert shares(runs, CELL, Kind.LIMIT, "makespan") == [1.0, 1.0]
    # Nothing to be compared with.
    assert shares(runs, CELL, Kind.OURS, "span") == []


def test_spread_and_slope() -> None:
    assert spread([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0, 3)
    assert slope([(100, 10), (200, 30), (300, 50)]) == pytest.approx(0.2)
