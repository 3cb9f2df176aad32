"""A worker is asked to end: it is gone in time, and what it had goes on elsewhere at once."""

import signal
import time

import pytest

from sandbox.processes import ChildProcess
from sandbox.proxy import Mode
from tests.faults.scenes import (
    Fleet,
    errors,
    eventually,
    executing,
    is_idle,
    sampled,
    step_of,
    together,
    was_interrupted,
)
from tests.stack import bars
from workers.lifecycle import leaving

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]

# After the grace, as docs/reliability.md says.
FAREWELL_SECONDS = 5.0
# What a machine with much else to do may add.
BUSY_SECONDS = 5.0
GONE_SECONDS = 15.0 + FAREWELL_SECONDS + BUSY_SECONDS
GRACE_OF_TWO_SECONDS = 2.0 + FAREWELL_SECONDS + BUSY_SECONDS
# Some two where nothing else is going on; of leases and graces all are longer.
AT_ONCE_SECONDS = 8.0


def gone(worker: ChildProcess, within: float, *numbers: signal.Signals) -> None:
    """The worker's end after these signals, in time and with exit code 0."""
    began = time.monotonic()
    for heard, number in enumerate(numbers, 1):
        worker.send_signal(number)
        # Two that come together are one.
        eventually(lambda heard=heard: worker.log.read_text().count(": leaving") == heard)
    assert worker.wait(GONE_SECONDS + 10) == 0
    assert time.monotonic() - began < within


def test_what_is_given_back_after_the_grace_has_less_than_is_promised() -> None:
    assert leaving._FAREWELL_SECONDS < FAREWELL_SECONDS


@together
def test_a_short_job_ends_and_a_long_one_goes_back_to_the_head(fleet: Fleet) -> None:
    slow, fast = fleet.server(step_seconds=0.5), fleet.server()
    worker = fleet.worker(slow, SHUTDOWN_GRACE_SECONDS="6")
    short = fleet.send(bars(1, seconds=3, steps=30))
    # Two that are taken at the same time may be submitted in either order.
    ended = executing(slow)
    long = fleet.send(sampled(steps=120))
    eventually(lambda: not fleet.waiting())
    behind = [fleet.send(bars(number)) for number in (3, 4)]
    gone(worker, GONE_SECONDS, signal.SIGTERM)

    assert short.state == "SUCCESS"
    assert errors(short.result) == [None]
    assert fleet.waiting() == [long.id, *(job.id for job in behind)]
    first = executing(slow, 2)
    assert eventually(lambda: was_interrupted(slow, first))
    assert is_idle(slow)

    fleet.worker(fast, WORKER_SLOTS="1")
    result = long.get(timeout=30)
    assert errors(result) == ["WorkerLeaving", None]
    assert executing(fast, 1)
    assert fast.execution_log()[0].prompt_id == result["prompt_id"]
    assert slow.executions() == {ended: 1, first: 1}
    others = [job.get(timeout=30)["prompt_id"] for job in behind]
    assert fast.executions() == dict.fromkeys([result["prompt_id"], *others], 1)


def goes_on_elsewhere(fleet: Fleet, within: float, *numbers: signal.Signals, **how: str) -> None:
    """A running job starts on an idle worker as soon as the one that had it is gone."""
    slow, fast = fleet.server(step_seconds=0.5), fleet.server()
    worker = fleet.worker(slow, **how)
    job = fleet.send(sampled(steps=120))
    first = executing(slow)
    fleet.worker(fast)
    gone(worker, within, *numbers)
    left_at = time.time()

    result = job.get(timeout=30)
    assert fast.execution_log()[0].began - left_at < AT_ONCE_SECONDS
    assert errors(result) == ["WorkerLeaving", None]
    assert eventually(lambda: was_interrupted(slow, first))
    assert slow.executions() == {first: 1}
    assert fast.executions() == {result["prompt_id"]: 1}
    assert eventually(fleet.has_drained)


@together
def test_a_job_that_outlasts_the_grace_starts_elsewhere_at_once(fleet: Fleet) -> None:
    goes_on_elsewhere(fleet, GRACE_OF_TWO_SECONDS, signal.SIGTERM, SHUTDOWN_GRACE_SECONDS="2")


@together
def test_a_second_sigterm_leaves_at_once(fleet: Fleet) -> None:
    twice = (signal.SIGTERM, signal.SIGTERM)
    goes_on_elsewhere(fleet, AT_ONCE_SECONDS, *twice, SHUTDOWN_GRACE_SECONDS="15")


@together
def test_sigquit_leaves_at_once(fleet: Fleet) -> None:
    goes_on_elsewhere(fleet, AT_ONCE_SECONDS, signal.SIGQUIT, SHUTDOWN_GRACE_SECONDS="15")


@together
def test_sigint_leaves_as_sigterm_does(fleet: Fleet) -> None:
    goes_on_elsewhere(fleet, GRACE_OF_TWO_SECONDS, signal.SIGINT, SHUTDOWN_GRACE_SECONDS="2")


@together
def test_a_server_that_hangs_does_not_keep_its_worker(fleet: Fleet) -> None:
    frozen, fast = fleet.server(step_seconds=0.5), fleet.server()
    # The default: all of it passes.
    worker = fleet.worker(frozen, SHUTDOWN_GRACE_SECONDS="15")
    job = fleet.send(sampled(steps=200))
    first = executing(frozen)
    fleet.worker(fast)
    frozen.process.pause()
    gone(worker, GONE_SECONDS, signal.SIGTERM)

    result = job.get(timeout=60)
    assert result["instance"] == fast.url
    assert frozen.executions() == {first: 1}
    assert fast.executions() == {result["prompt_id"]: 1}
    assert eventually(fleet.has_drained)


@together
def test_a_prompt_that_could_not_be_stopped_is_stopped_by_the_next_worker(fleet: Fleet) -> None:
    slow, fast = fleet.server(step_seconds=0.5), fleet.server()
    proxy = fleet.proxy(slow.url)
    url = f"http://{proxy.address}"
    worker = fleet.worker(slow, url=url, SHUTDOWN_GRACE_SECONDS="1")
    job = fleet.send(sampled(steps=200))
    first = executing(slow)
    fleet.worker(fast)
    # The worker knows that it runs.
    eventually(lambda: step_of(job) > 0)
    proxy.set(Mode.REFUSE)
    gone(worker, GONE_SECONDS, signal.SIGTERM)
    assert job.get(timeout=60)["instance"] == fast.url
    proxy.set(Mode.PASS)

    fleet.worker(slow, url=url)
    assert eventually(lambda: was_interrupted(slow, first), 10)
    assert is_idle(slow)
    assert set(fleet.executions().values()) == {1}


@together
def test_a_broker_that_is_away_does_not_keep_its_worker(fleet: Fleet) -> None:
    slow, fast = fleet.server(step_seconds=0.5), fleet.server()
    worker = fleet.worker(slow, SHUTDOWN_GRACE_SECONDS="1")
    job = fleet.send(sampled(steps=120)).id
    first = executing(slow)
    fleet.valkey.stop()
    gone(worker, GONE_SECONDS, signal.SIGTERM)
    fleet.valkey.start()
    fleet.reconnect()
    fleet.worker(fast)

    result = fleet.job(job).get(timeout=60)
    assert slow.executions() == {first: 1}
    assert fast.executions() == {result["prompt_id"]: 1}
    assert eventually(lambda: was_interrupted(slow, first))
    assert eventually(fleet.has_drained)
