"""The soak as short as it can be: each fault that kills a process, and every job accounted for."""

import pytest

from tests.chaos.schedule import Kind, plan
from tests.chaos.soak import soak
from tests.chaos.table import table
from tests.forking import Forks

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]

KINDS = (
    Kind.KILL_WORKER,
    Kind.TERM_WORKER,
    Kind.KILL_COMFYUI,
    Kind.RESTART_VALKEY,
    Kind.CANCEL,
    Kind.DUPLICATE,
)


def test_every_job_ends_once_whatever_dies() -> None:
    schedule = plan(
        1, jobs=100, workers=2, kinds=KINDS, job_seconds=(0.2, 0.6), fault_every=2.5, span=18
    )
    assert {fault.kind for fault in schedule.faults} == set(KINDS)
    with Forks() as forks:
        report = soak(schedule, workers=2, patience=40, start=forks)
    assert report.jobs == 100
    assert set(report.faults) == set(KINDS)
    assert report.is_good, table(report)
    assert report.wrong == {}, table(report)
