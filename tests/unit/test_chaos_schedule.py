"""The plan of a soak: the same for the same seed, and nothing left to luck."""

from collections import Counter

import pytest

from tests.chaos.schedule import Kind, plan


def test_same_seed_gives_the_same_plan_and_another_seed_another() -> None:
    assert plan(1, jobs=100, workers=4) == plan(1, jobs=100, workers=4)
    assert plan(1, jobs=100, workers=4) != plan(2, jobs=100, workers=4)


def test_jobs_are_all_different_and_last_as_long_as_they_may() -> None:
    jobs = plan(1, jobs=1000, workers=4).jobs
    assert len({job.id for job in jobs}) == len({job.seed for job in jobs}) == 1000
    assert all(0.2 <= job.seconds <= 3 for job in jobs)
    assert [job.at for job in jobs] == sorted(job.at for job in jobs)


def test_jobs_come_as_fast_as_a_healthy_fleet_would_do_them() -> None:
    jobs = plan(1, jobs=1000, workers=4).jobs
    assert jobs[-1].at == pytest.approx(sum(job.seconds for job in jobs) / 4, rel=0.01)
    assert plan(1, jobs=1000, workers=4, span=60).jobs[-1].at == pytest.approx(60, rel=0.01)


def test_every_kind_of_fault_comes_about_as_often_as_any_other() -> None:
    faults = plan(1, jobs=1000, workers=4).faults
    counts = Counter(fault.kind for fault in faults)
    assert set(counts) == set(Kind)
    assert max(counts.values()) - min(counts.values()) <= 1
    assert [fault.at for fault in faults] == sorted(fault.at for fault in faults)


def test_only_the_wanted_kinds_come() -> None:
    kinds = [Kind.KILL_WORKER, Kind.CANCEL]
    counts = Counter(fault.kind for fault in plan(1, jobs=1000, workers=4, kinds=kinds).faults)
    assert set(counts) == set(kinds)
    assert plan(1, jobs=1000, workers=4, kinds=[]).faults == ()


def test_targets_are_within_the_fleet_and_poison_is_numbered() -> None:
    faults = plan(1, jobs=1000, workers=3).faults
    assert {f.target for f in faults if f.kind is Kind.KILL_COMFYUI} <= {0, 1, 2}
    poisons = [fault.target for fault in faults if fault.kind is Kind.POISON]
    assert poisons == list(range(len(poisons)))
