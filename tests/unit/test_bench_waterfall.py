"""From a worker's log to where each millisecond goes."""

import pytest

from bench.waterfall import MARKS, Step, drawn, marks_in, steps

LOG = """
[2026-01-01 00:00:00: DEBUG/MainProcess] timeline a received 100.010000
[2026-01-01 00:00:00: DEBUG/MainProcess] timeline a downloaded 100.400000
[2026-01-01 00:00:00: INFO/MainProcess] job b: received
[2026-01-01 00:00:00: DEBUG/MainProcess] timeline b received 200.500000
[2026-01-01 00:00:00: DEBUG/MainProcess] timeline a downloaded 100.450000
[2026-01-01 00:00:00: DEBUG/MainProcess] timeline a torn 100.4
timeline a incomplete
"""


def test_the_last_of_a_mark_counts() -> None:
    found = marks_in(LOG)
    assert found["a"] == {"received": 100.01, "downloaded": 100.45, "torn": 100.4}
    assert found["b"] == {"received": 200.5}


def test_steps_are_medians_in_the_order_of_time_and_add_up() -> None:
    jobs = [
        {"queued": 10.0, "received": 10.0 + shift, "finished": 11.0, "result": 12.0, **rest}
        for shift, rest in ((0.1, {"seen": 10.9}), (0.3, {"seen": 10.9}), (0.2, {}))
    ]
    found = steps(jobs)
    # Not all jobs have been seen.
    assert [step.mark for step in found] == ["queued", "received", "finished", "result"]
    assert [step.at for step in found] == pytest.approx([0, 200, 1000, 2000])
    assert sum(step.took for step in found) == pytest.approx(found[-1].at)


def test_a_drawing_has_a_line_a_step_and_says_what_it_is() -> None:
    lines = drawn([Step("queued", 0, 0), Step("seen", 900, 900), Step("result", 1000, 100)])
    head, *body = lines.splitlines()
    assert head.split() == ["at", "ms", "took", "ms"]
    assert [line.split()[:3] for line in body] == [
        ["queued", "0.0", "0.0"],
        ["seen", "900.0", "900.0"],
        ["result", "1000.0", "100.0"],
    ]
    assert [line.count("█") for line in body] == [1, 32, 4]
    for line, mark in zip(body, ("queued", "seen", "result"), strict=True):
        assert line.endswith(MARKS[mark])
    assert max(map(len, body)) < 110
