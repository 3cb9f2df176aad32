"""What is planned, and how it is told."""

from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest

from bench.chart import svg
from bench.goals import verdicts
from bench.model import (
    Cell,
    Kind,
    MixRun,
    Report,
    Run,
    Single,
    SingleJob,
    SingleRun,
    SlotsRun,
    SlotsTried,
)
from bench.plan import PARTS, plan, possible, quick_plan
from bench.table import markdown, told
from bench.warm.model import Order, RareRun, WarmRun

CELL = Cell(0.3, 1, 250, 10, tuple(Kind), 3)
(MIX, *_) = plan(("mixed",)).mixes
(WARM,) = plan(("warm",)).warm
JOB = SingleJob(0.3, 0.85, 0.25, {"queued": 1.0, "started": 1.1, "finished": 1.4, "result": 1.85})

SPANS = {
    Kind.LIMIT: 3.0,
    Kind.SEQUENTIAL: 6.0,
    Kind.PLAIN_2: 3.2,
    Kind.PLAIN_6: 3.1,
    Kind.OURS: 3.03,
}
REPORT = Report(
    machine={"cores": 2, "graph": "BarsRender"},
    runs=tuple(
        Run(CELL, kind, n, seconds, seconds + 0.5, 0.3, 0.01, {"PUT": 20})
        for kind, seconds in SPANS.items()
        for n in range(3)
    ),
    mixes=(MixRun(MIX, Kind.OURS, 0, 10.6), MixRun(MIX, Kind.PLAIN_2, 0, 20.5)),
    singles=tuple(SingleRun(Single(0.3, 250, 1, timeline), (JOB,)) for timeline in (False, True)),
    slots=(
        SlotsRun(
            SlotsTried(12, CELL),
            tuple(
                Run(CELL, kind, 0, seconds, seconds, 0.3, 0.01, {})
                for kind, seconds in ((Kind.LIMIT, 3.0), (Kind.OURS, 4.0))
            ),
        ),
    ),
    warm=tuple(
        WarmRun(WARM, order, n, loads, pairs, seconds, 0.05)
        for order, loads, pairs, seconds in ((Order.FIFO, 30, 15, 14.0), (Order.WARM, 6, 5, 7.0))
        for n in range(3)
    ),
    rare=(RareRun(WARM, wait=3.5, late=2.1, overtakers=30, crowd=9.0),),
    notes=("A note.",),
    seconds=12.3,
)


def test_a_plan_has_each_part_alone_and_all_together() -> None:
    whole = plan()
    alone = [plan((part,)) for part in PARTS]
    assert whole.cells == tuple(cell for one in alone for cell in one.cells)
    assert whole.mixes == tuple(mix for one in alone for mix in one.mixes)
    assert set(whole.singles) == {single for one in alone for single in one.singles}
    assert {cell.seconds for cell in whole.cells} == {0.1, 0.3, 1.0, 5.0}
    assert {mix.servers for mix in whole.mixes} == {2, 4, 16}
    assert whole.slots == tuple(one for part in alone for one in part.slots)
    assert 12 in {one.slots for one in whole.slots}
    assert whole.warm == (WARM,)
    assert quick_plan().cells


def test_stand_ins_can_do_everything() -> None:
    assert possible(plan(), renders=True, servers=None) == (plan(), ())


def test_servers_that_cannot_be_told_how_long_do_each_batch_and_distance_once() -> None:
    can, notes = possible(plan(), renders=False, servers=16)
    assert not can.mixes
    kinds = [(cell.batch, cell.s3_ms) for cell in can.cells]
    assert len(kinds) == len(set(kinds)) == 4
    assert "cannot be long and short" in notes[0]


def test_too_few_servers_do_fewer_mixes_and_it_is_said() -> None:
    can, notes = possible(plan(), renders=True, servers=3)
    assert [mix.servers for mix in can.mixes] == [2]
    assert "[4, 16]" in notes[0]


def test_real_servers_do_not_tell_of_their_loads_and_it_is_said() -> None:
    can, notes = possible(plan(("warm",)), renders=True, servers=4)
    assert not can.warm
    assert notes == ("Left out, since only stand-ins tell of their loads: warm first.",)


def test_the_table_has_what_was_measured() -> None:
    text = markdown(REPORT)
    rows = {line.split(" | ")[0].strip("| "): line for line in text.splitlines()[::-1]}
    assert "0.500 [0.500, 0.500]" in rows["sequential client"]
    assert rows["comfyfleet"].endswith("| 0.990 [0.990, 0.990] | 10.6 |")
    assert "| comfyfleet | 10.6 s |" in text
    assert "2 PUT" in text
    assert "| 12 | 0.750 |" in text
    assert rows["comfyfleet, warm first"].startswith("| comfyfleet, warm first | 6 [6, 6] | 1.20")
    assert (
        rows["best possible"] == "| best possible | 4 | 1.00 | 4.2 s | 0.30 [0.30, 0.30] | 0.000 |"
    )
    assert "number 9 of 101 that were sent at once, began after 3.5 s, 2.1 s after its" in text
    assert "A note." in text
    assert "```text" in text
    assert "| missed |" not in text.replace("*", "")


@pytest.mark.parametrize(
    ("overtakers", "text"),
    [(30, "; 30 overtook it, and"), (0, "; 0 overtook it, and"), (-5, "; it overtook 5, and")],
)
def test_who_overtook_whom_is_told(overtakers: int, text: str) -> None:
    rare = (replace(REPORT.rare[0], overtakers=overtakers),)
    assert text in markdown(replace(REPORT, rare=rare))


@pytest.mark.parametrize(
    ("values", "text"),
    [([], "-"), ([1.0], "1.000"), ([1.0, 3.0, 2.0], "2.000 [1.000, 3.000]")],
)
def test_values_are_told_with_their_spread(values: list[float], text: str) -> None:
    assert told(values) == text


def test_goals_are_of_ours_and_can_be_missed() -> None:
    assert {one.what: one.is_met for one in verdicts(REPORT)} == {
        "span, 0.3 s jobs": True,
        "long and short, 2 servers": True,
        "loads of a model on a server that loads it": True,
        "warm first, makespan of that of plain FIFO": True,
        "a rare model's job after its turn": True,
        "single job, S3 250 ms": True,
    }
    slow = replace(REPORT, singles=(), warm=(), mixes=(replace(REPORT.mixes[0], seconds=11.5),))
    assert [one.is_met for one in verdicts(slow)] == [True, False]
    cold = replace(
        REPORT,
        runs=(),
        mixes=(),
        singles=(),
        warm=tuple(replace(one, loads=2 * one.loads, makespan=14.0) for one in REPORT.warm),
        rare=(replace(REPORT.rare[0], late=5.1),),
    )
    assert [one.is_met for one in verdicts(cold)] == [False] * 3


def test_the_chart_is_an_image_with_a_bar_a_contender() -> None:
    root = ET.fromstring(svg(REPORT))
    texts = [node.text for node in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "0.3 s jobs" in texts
    assert {"50.0%", "99.0%"} <= set(texts)
    bars = [node for node in root.iter("{http://www.w3.org/2000/svg}rect") if node.get("fill")]
    assert len(bars) == len(Kind) - 1
