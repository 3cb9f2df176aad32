"""How a running job is told to end or to go elsewhere: at once, and not after it is sealed."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tasks.errors import CancelledError, JobCancelledError, StorageUnavailableError
from workers.execution.control import Control, HandedOn, WorkerLeaving

LONG = 30.0


def is_stopped(control: Control) -> bool:
    try:
        control.check()
    except (CancelledError, HandedOn):
        return True
    return False


def test_a_job_goes_on_while_nobody_has_a_reason() -> None:
    control = Control()
    control.check()
    control.sleep(0.0)
    assert not is_stopped(control)
    with control.sealed():
        control.check()
    assert not is_stopped(control)


def test_the_first_reason_wins() -> None:
    control = Control()
    assert control.stop(JobCancelledError("first"))
    assert not control.stop(WorkerLeaving("second"))
    for _ in range(2):
        with pytest.raises(JobCancelledError, match="first"):
            control.check()
        assert is_stopped(control)


def test_of_many_reasons_at_once_one_wins() -> None:
    control = Control()
    barrier = threading.Barrier(8)

    def stop(number: int) -> bool:
        barrier.wait(LONG)
        return control.stop(WorkerLeaving(str(number)))

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(stop, range(8)))
    assert sum(won) == 1
    with pytest.raises(WorkerLeaving, match=f"^{won.index(True)}$"):
        control.check()


def test_nothing_ends_a_job_while_it_is_committed_nor_after() -> None:
    control = Control()
    with control.sealed():
        assert not control.stop(JobCancelledError("too late"))
    assert not control.stop(JobCancelledError("too late"))
    assert not is_stopped(control)
    control.check()
    control.sleep(0.0)


def test_what_was_stopped_is_not_committed() -> None:
    control = Control()
    control.stop(JobCancelledError("in time"))
    with pytest.raises(JobCancelledError), control.sealed():
        pytest.fail("it was")
    with pytest.raises(JobCancelledError):
        control.check()


def test_a_commit_that_failed_may_be_ended_before_the_next_try() -> None:
    control = Control()
    with pytest.raises(StorageUnavailableError), control.sealed():
        raise StorageUnavailableError("away")
    assert control.stop(JobCancelledError("in between"))
    with pytest.raises(JobCancelledError), control.sealed():
        pytest.fail("it was committed")


@pytest.mark.timeout(LONG / 2)
def test_a_sleeper_is_woken_by_the_reason() -> None:
    control = Control()
    with ThreadPoolExecutor(1) as pool:
        sleeping = pool.submit(control.sleep, LONG)
        control.stop(WorkerLeaving("x"))
        with pytest.raises(WorkerLeaving):
            sleeping.result(LONG)


def test_a_waiter_is_woken_by_the_reason_whenever_it_comes() -> None:
    woken: list[str] = []
    control = Control()
    with control.waking(lambda: woken.append("while waiting")):
        assert woken == []
        control.stop(WorkerLeaving("x"))
        assert woken == ["while waiting"]
    with control.waking(lambda: woken.append("before waiting")):
        assert woken == ["while waiting", "before waiting"]


def test_who_waits_no_more_is_not_woken() -> None:
    woken: list[None] = []
    control = Control()
    with control.waking(lambda: woken.append(None)):
        pass
    assert control.stop(WorkerLeaving("x"))
    assert woken == []


def test_whoever_wakes_may_ask_the_control() -> None:
    control = Control()
    seen: list[bool] = []

    def wake() -> None:
        # With its lock held it would wait for itself.
        seen.append(control.stop(WorkerLeaving("again")))

    with control.waking(wake):
        control.stop(WorkerLeaving("x"))
    assert seen == [False]


# Wanted elsewhere


def test_who_is_wanted_elsewhere_is_woken_and_goes_on() -> None:
    woken: list[bool] = []
    control = Control()
    assert not control.wanted_elsewhere
    with control.waking(lambda: woken.append(control.wanted_elsewhere)):
        control.want_elsewhere()
        # A wish, which no executing job has to follow, is no reason to end.
        control.check()
        control.sleep(0.0)
    # Who is woken sees why.
    assert woken == [True]
    assert not is_stopped(control)
    with control.sealed():
        control.check()


def test_a_wish_wakes_each_time_and_is_kept_where_nobody_waits() -> None:
    woken: list[None] = []
    control = Control()
    control.want_elsewhere()
    assert control.wanted_elsewhere
    with control.waking(lambda: woken.append(None)):
        for _ in range(2):
            control.wanted_elsewhere = False
            control.want_elsewhere()
    control.want_elsewhere()
    assert (control.wanted_elsewhere, len(woken)) == (True, 2)


def test_whoever_a_wish_wakes_may_ask_the_control() -> None:
    control = Control()
    # With its lock held it would wait for itself.
    with control.waking(lambda: control.stop(WorkerLeaving("x"))):
        control.want_elsewhere()
    assert is_stopped(control)


def test_a_reason_to_end_counts_whatever_is_wanted() -> None:
    control = Control()
    control.want_elsewhere()
    assert control.stop(JobCancelledError("x"))
    with pytest.raises(JobCancelledError):
        control.check()
