"""What is told of a worker's health."""

import json
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from celery import bootsteps

from tasks.errors import StorageUnavailableError
from workers.broker import pulse as steps
from workers.broker.pulse import LoopPulse, broker_trouble
from workers.health.asking import Asking, NoAnswerError
from workers.health.pulse import STUCK_SECONDS, Pulse, turning
from workers.health.report import answering, health_pages, report

PATIENCE = 10.0


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_an_answer_is_good_enough_for_a_while() -> None:
    clock, answers = Clock(), iter((1, 2))
    asking = Asking(lambda: next(answers), every=5.0, wait=PATIENCE, clock=clock)
    assert [asking.latest(), asking.latest()] == [1, 1]
    clock.now += 4.9
    assert asking.latest() == 1
    clock.now += 0.1
    assert asking.latest() == 2


def test_many_who_want_to_know_ask_once() -> None:
    asked: list[int] = []
    may_answer = threading.Event()

    def ask() -> int:
        asked.append(1)
        assert may_answer.wait(PATIENCE)
        return 7

    asking, answers = Asking(ask, every=60.0, wait=PATIENCE), []
    threads = [threading.Thread(target=lambda: answers.append(asking.latest())) for _ in range(8)]
    for one in threads:
        one.start()
    may_answer.set()
    for one in threads:
        one.join(PATIENCE)
    assert (answers, asked) == ([7] * 8, [1])


def test_what_hangs_holds_up_nobody_and_counts_as_no_answer_in_the_end() -> None:
    clock, hangs, goes_on = Clock(), threading.Event(), threading.Event()
    goes_on.set()
    started: list[int] = []

    def ask() -> int:
        started.append(1)
        hangs.set()
        assert goes_on.wait(PATIENCE)
        return len(started)

    asking = Asking(ask, every=5.0, wait=0.01, patience=15.0, clock=clock)
    while True:
        try:
            assert asking.latest() == 1
            break
        except NoAnswerError:
            hangs.wait(PATIENCE)
    goes_on.clear()
    hangs.clear()
    clock.now += 6
    # The one before is still good.
    assert asking.latest() == 1
    clock.now += 16
    with pytest.raises(NoAnswerError, match="no answer for 16 s"):
        asking.latest()
    # It is not asked again meanwhile.
    assert hangs.wait(PATIENCE)
    assert len(started) == 2
    goes_on.set()


def test_a_first_question_that_hangs_has_no_answer() -> None:
    goes_on = threading.Event()
    asking = Asking(lambda: goes_on.wait(PATIENCE), every=5.0, wait=0.01, clock=Clock())
    with pytest.raises(NoAnswerError, match="no answer for 0 s"):
        asking.latest()
    goes_on.set()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (StorageUnavailableError("the store is away"), "the store is away"),
        # Whatever it holds is not for everybody.
        (ValueError("s3cret"), "ValueError"),
    ],
)
def test_what_fails_is_told_and_asked_again(error: Exception, reason: str) -> None:
    clock, errors = Clock(), [error]

    def ask() -> None:
        if errors:
            raise errors.pop()

    check = answering(Asking(ask, every=5.0, wait=PATIENCE, clock=clock))
    assert check() == reason
    clock.now += 5
    assert check() == ""


def test_a_page_names_each_check() -> None:
    well = report({"a": lambda: "", "b": lambda: ""})
    assert (well.status, json.loads(well.body)) == (
        200,
        {"ok": True, "checks": {"a": {"ok": True}, "b": {"ok": True}}},
    )
    ill = report({"a": lambda: "", "b": lambda: "it is away"})
    assert (ill.status, json.loads(ill.body)) == (
        503,
        {"ok": False, "checks": {"a": {"ok": True}, "b": {"ok": False, "reason": "it is away"}}},
    )


def test_who_waits_for_a_server_is_live_and_not_ready() -> None:
    pages = health_pages({"loop": lambda: ""}, {"server": lambda: "every server has its worker"})
    assert (pages["/livez"]("").status, pages["/readyz"]("").status) == (200, 503)


def test_a_loop_that_does_not_turn_is_told_in_the_end() -> None:
    clock = Clock()
    pulse = Pulse(clock)
    clock.now += STUCK_SECONDS - 1
    assert pulse.trouble() == ""
    clock.now += 1
    assert pulse.trouble() == "the loop that takes messages has not turned for 90 s"
    pulse.beat()
    assert pulse.trouble() == ""
    clock.now += STUCK_SECONDS
    # Who leaves still has jobs, and no loop any more.
    pulse.is_over = True
    assert pulse.trouble() == ""


def test_a_loop_that_waits_for_its_broker_is_not_stuck() -> None:
    clock, broker = Clock(), "the broker has not answered for 15 s"
    check = turning(Pulse(clock), lambda: broker)
    clock.now += STUCK_SECONDS
    assert check() == ""
    broker = ""
    clock.now += STUCK_SECONDS - 1
    assert check() == ""
    clock.now += 1
    assert check() == "the loop that takes messages has not turned for 90 s"


class Timer:
    def __init__(self) -> None:
        self.every: list[tuple[float, Any]] = []
        self.cancelled = 0

    def call_repeatedly(self, seconds: float, call: Any) -> Any:
        self.every.append((seconds, call))
        return self

    def cancel(self) -> None:
        self.cancelled += 1


def consumer(**fields: Any) -> Any:
    given = {
        "controller": SimpleNamespace(pulse=Pulse(Clock())),
        "timer": Timer(),
        "blueprint": SimpleNamespace(state=bootsteps.RUN),
        "connection": SimpleNamespace(
            connected=True, transport=SimpleNamespace(driver_type="redis")
        ),
        "message_heartbeat": SimpleNamespace(succeeded_at=None),
    }
    return SimpleNamespace(**{**given, **fields})


def test_the_loop_beats_over_each_connection_and_ends_with_the_worker() -> None:
    one = consumer()
    step, pulse = LoopPulse(one), one.controller.pulse
    step.start(one)
    assert one.timer.every == [(steps._BEAT_SECONDS, pulse.beat)]
    step.stop(one)
    assert (one.timer.cancelled, pulse.is_over) == (1, False)
    step.start(one)
    one.blueprint.state = bootsteps.CLOSE
    step.stop(one)
    assert (one.timer.cancelled, pulse.is_over) == (2, True)


def test_a_broker_is_there_while_it_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps.time, "monotonic", lambda: 1000.0)
    heard, unheard = SimpleNamespace(succeeded_at=995.0), SimpleNamespace(succeeded_at=985.0)
    other = SimpleNamespace(connected=True, transport=SimpleNamespace(driver_type="amqp"))
    assert broker_trouble(consumer()) == ""
    assert broker_trouble(consumer(message_heartbeat=heard)) == ""
    assert "has not answered for 15 s" in broker_trouble(consumer(message_heartbeat=unheard))
    # There what counts is what the connection itself has heard.
    assert broker_trouble(consumer(connection=other, task_consumer=None)) == ""
    for heard_at, trouble in ((995.0, ""), (985.0, "the broker has not answered for 15 s")):
        channel = SimpleNamespace(connection=SimpleNamespace(heard_at=heard_at))
        listening = SimpleNamespace(channel=channel)
        assert broker_trouble(consumer(connection=other, task_consumer=listening)) == trouble
    gone = "there is no connection to the broker"
    assert broker_trouble(None) == gone
    assert broker_trouble(consumer(connection=None)) == gone
    other.connected = False
    assert broker_trouble(consumer(connection=other)) == gone
