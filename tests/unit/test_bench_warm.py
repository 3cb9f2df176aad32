"""From executions and loads to the numbers of warm first."""

import pytest

from bench.model import BenchError, Execution
from bench.plan import plan
from bench.warm.figures import idle_share, loads, makespan_shares, rare_run
from bench.warm.model import WAIT_SETTING, Order, Warm, WarmRun
from settings.model import Settings

(WARM,) = plan(("warm",)).warm


def execution(server: str, started: float, ended: float, *models: str) -> Execution:
    return Execution(server, f"{server}{started}", started, ended, models)


def test_loads_are_counted_by_server_and_model() -> None:
    known = [
        execution("a", 0, 1, "m", "n"),
        execution("a", 1, 2),
        execution("a", 2, 3, "m"),
        execution("b", 0, 1, "m"),
    ]
    assert loads(known) == {("a", "m"): 2, ("a", "n"): 1, ("b", "m"): 1}


def test_a_server_idles_only_while_a_job_waits() -> None:
    # The last one begins at 14: until then a did nothing for 1 s of 4, b for 2 s, and c ever.
    known = [execution("a", 11, 13), execution("a", 13, 20), execution("b", 10, 12)]
    known.append(execution("b", 14, 15))
    assert idle_share(known, 3, sent=10) == pytest.approx((1 + 2 + 4) / 12)
    assert idle_share(known[:2], 1, sent=11) == 0


def test_makespans_are_paired_by_repetition() -> None:
    times = {(Order.FIFO, 0): 10.0, (Order.FIFO, 1): 20.0, (Order.WARM, 1): 5.0}
    times[Order.WARM, 0] = 4.0
    runs = [WarmRun(WARM, *which, 1, 1, seconds, 0.0) for which, seconds in times.items()]
    assert makespan_shares(runs) == [0.25, 0.4]


def test_a_rare_job_is_late_after_its_place_in_the_queue() -> None:
    warm = Warm(1, 1, 4, 1.0, 3.0, crowd=4, ahead=1, repeat=1)
    # It was the second, and three were before it.
    known = [execution("a", 10 + at, 11 + at) for at in range(3)]
    known += [execution("a", 13, 17, "rare"), execution("a", 17, 18)]
    rare = rare_run(warm, known, "rare", sent=9.5)
    assert (rare.wait, rare.late, rare.overtakers, rare.crowd) == (3.5, 2, 2, 7.5)
    with pytest.raises(BenchError, match="0 executions loaded other, not one"):
        rare_run(warm, known, "other", sent=9.5)


def test_no_order_takes_less_than_one_load_a_model_and_all_the_work_shared() -> None:
    warm = Warm(4, 2, 10, 0.5, 3.0, crowd=4, ahead=1, repeat=1)
    assert warm.least_seconds == 2 * (3.0 + 5.0) / 4


def test_a_worker_is_plain_or_waits_for_as_long_as_all_else_takes_here() -> None:
    default = Settings.model_fields["warm_wait_seconds"].default
    assert Order.FIFO.settings == {WAIT_SETTING: "0"}
    assert float(Order.WARM.settings[WAIT_SETTING]) == default / 20
