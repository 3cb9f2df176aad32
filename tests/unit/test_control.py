"""How a running job is told to end: once, at once, and not after it is sealed."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tasks.errors import JobCancelledError, StorageUnavailableError
from workers.execution.control import Control, WorkerLeaving

LONG = 30.0


def test_a_job_goes_on_while_nobody_has_a_reason() -> None:
    control = Control()
    control.check()
    control.sleep(0.0)
    with control.sealed():
        control.check()


def test_the_first_reason_wins() -> None:
    control = Control()
    assert control.stop(JobCancelledError("first"))
    assert not control.stop(WorkerLeaving("second"))
    for _ in range(2):
        with pytest.raises(JobCancelledError, match="first"):
            control.check()


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
