"""The keeper of leases, with a ledger that answers as the test says and a thread that is nudged."""

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator

import pytest

from tasks.errors import BrokerUnavailableError, JobCancelledError
from workers.execution import keeper as module
from workers.execution.control import LeaseLost, WorkerLeaving
from workers.execution.keeper import Keeper, Lease
from workers.ledger import Claimed, Record
from workers.ledger.ledger import CANCEL, LEASE_SECONDS, LOST, OURS, RENEW_SECONDS

PATIENCE = 10.0
LAPSED = float("-inf")
Claim = tuple[str, int]


def claim(token: int, now: float = 5000.0) -> Claimed:
    record = Record(place="here", instance="http://here", client_id="c", folder="f")
    return Claimed(token, now, is_new=True, owner_died=False, record=record)


class Ledger:
    """Answers as it is told; each question and each announcement is an event."""

    def __init__(self) -> None:
        self.answers: dict[str, int] = {}
        self.errors: list[Exception] = []
        self.orders: list[str] = []
        self.renewed: list[set[Claim]] = []
        self.struck_off: queue.Queue[list[str]] = queue.Queue()
        self.left: list[Claim] = []
        self.ordered: list[tuple[str, str]] = []
        self.asked: queue.Queue[None] = queue.Queue()
        self.announced: queue.Queue[bool] = queue.Queue()

    def renew(self, claims: Iterable[Claim]) -> dict[Claim, int]:
        self.renewed.append(set(claims))
        self.asked.put(None)
        if self.errors:
            raise self.errors.pop(0)
        return {claim: self.answers.get(claim[0], OURS) for claim in claims}

    def announce(self, place: str, *, live: bool) -> list[str]:
        assert place == "here"
        self.announced.put(live)
        return self.orders

    def stopped(self, place: str, prompt_ids: Iterable[str]) -> None:
        assert place == "here"
        self.struck_off.put(list(prompt_ids))

    def leave(self, claims: Iterable[Claim]) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.left.extend(claims)

    def order_stop(self, place: str, prompt_id: str) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.ordered.append((place, prompt_id))


class Worker:
    """What the keeper asks its worker."""

    takes_jobs = True

    def __init__(self) -> None:
        self.stopped: list[str] = []

    def stop_prompt(self, prompt_id: str) -> bool:
        self.stopped.append(prompt_id)
        return "unreachable" not in prompt_id


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def worker() -> Worker:
    return Worker()


@pytest.fixture
def keeper(ledger: Ledger, worker: Worker, monkeypatch: pytest.MonkeyPatch) -> Keeper:
    # Of itself it does nothing before the test is over.
    monkeypatch.setattr(module, "RENEW_SECONDS", 3600.0)
    monkeypatch.setattr(module, "_PAUSE", 0.001)
    return Keeper(
        ledger,  # type: ignore[arg-type]
        "here",
        takes_jobs=lambda: worker.takes_jobs,
        stop_prompt=worker.stop_prompt,
    )


Round = Callable[[], bool]


@pytest.fixture
def around(keeper: Keeper, ledger: Ledger) -> Iterator[Round]:
    """Have the keeper's thread go round once, and return what it told the others."""
    keeper.start()

    def nudged() -> bool:
        keeper.nudge()
        return ledger.announced.get(timeout=PATIENCE)

    yield nudged
    keeper.stop()


def test_a_lease_outlives_two_renewals_that_fail() -> None:
    assert LEASE_SECONDS - module._MARGIN >= 3 * RENEW_SECONDS


# Renewing


def test_what_is_held_is_renewed_and_nothing_else(
    keeper: Keeper, ledger: Ledger, around: Round
) -> None:
    around()
    assert ledger.renewed == []
    with (
        keeper.holding("a", claim(1), time.monotonic()),
        keeper.holding("b", claim(2), time.monotonic()),
    ):
        around()
    around()
    assert ledger.renewed == [{("a", 1), ("b", 2)}]


def test_a_renewed_lease_is_valid_from_when_it_was_asked_for(keeper: Keeper, around: Round) -> None:
    with keeper.holding("a", claim(1), LAPSED) as lease:
        before = time.monotonic()
        around()
        assert before <= lease.valid_until - LEASE_SECONDS <= time.monotonic()


def test_a_lease_is_valid_from_when_it_was_claimed(keeper: Keeper) -> None:
    with keeper.holding("a", claim(1), 100.0) as lease:
        assert lease.valid_until == 100.0 + LEASE_SECONDS


@pytest.mark.parametrize(("answer", "reason"), [(LOST, LeaseLost), (CANCEL, JobCancelledError)])
def test_a_job_learns_what_became_of_its_lease(
    keeper: Keeper, ledger: Ledger, around: Round, answer: int, reason: type[Exception]
) -> None:
    ledger.answers = {"a": answer}
    now = time.monotonic()
    with keeper.holding("a", claim(1), now) as one, keeper.holding("b", claim(1), now) as other:
        around()
        with pytest.raises(reason):
            one.control.check()
        other.control.check()


def test_a_job_that_comes_again_to_the_same_worker_is_another_lease(
    keeper: Keeper, ledger: Ledger, around: Round
) -> None:
    with keeper.holding("a", claim(1), time.monotonic()):
        with keeper.holding("a", claim(2), time.monotonic()):
            around()
        around()
    assert ledger.renewed == [{("a", 1), ("a", 2)}, {("a", 1)}]


def test_a_ledger_that_is_away_is_asked_again_and_told_of_once(
    keeper: Keeper, ledger: Ledger, around: Round, caplog: pytest.LogCaptureFixture
) -> None:
    ledger.errors = [BrokerUnavailableError("away") for _ in range(3)]
    with keeper.holding("a", claim(1), LAPSED) as lease:
        for _ in range(3):
            keeper.nudge()
            ledger.asked.get(timeout=PATIENCE)
        assert lease.valid_until == LAPSED
        around()
        assert lease.valid_until > time.monotonic()
        lease.control.check()
    assert caplog.text.count("leases cannot be renewed") == 1


def test_a_fault_of_ours_does_not_end_the_thread(
    keeper: Keeper, ledger: Ledger, around: Round
) -> None:
    ledger.errors = [KeyError("a fault")]
    with keeper.holding("a", claim(1), LAPSED) as lease:
        keeper.nudge()
        ledger.asked.get(timeout=PATIENCE)
        around()
        assert lease.valid_until > time.monotonic()


# Before the commit


def test_a_lease_that_is_valid_is_trusted(keeper: Keeper, ledger: Ledger) -> None:
    with keeper.holding("a", claim(1), time.monotonic()) as lease:
        keeper.confirm(lease)
    assert ledger.renewed == []


@pytest.mark.parametrize("left", [LAPSED, module._MARGIN - 1.0 - LEASE_SECONDS])
def test_a_lease_that_is_about_to_end_is_renewed_first(
    keeper: Keeper, ledger: Ledger, left: float
) -> None:
    with keeper.holding("a", claim(1), time.monotonic() + left) as lease:
        keeper.confirm(lease)
        assert ledger.renewed == [{("a", 1)}]


def test_without_an_answer_nothing_is_confirmed(keeper: Keeper, ledger: Ledger) -> None:
    ledger.errors = [BrokerUnavailableError("away") for _ in range(5)]
    with keeper.holding("a", claim(1), LAPSED) as lease:
        keeper.confirm(lease)
        assert len(ledger.renewed) == 6


@pytest.mark.parametrize(("answer", "reason"), [(LOST, LeaseLost), (CANCEL, JobCancelledError)])
def test_what_is_not_ours_any_more_is_not_confirmed(
    keeper: Keeper, ledger: Ledger, answer: int, reason: type[Exception]
) -> None:
    ledger.answers = {"a": answer}
    with keeper.holding("a", claim(1), LAPSED) as lease:
        with pytest.raises(reason):
            keeper.confirm(lease)


def test_a_reason_to_end_ends_the_wait_for_an_answer(
    keeper: Keeper, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_: object) -> None:
        keeper.stop_jobs(WorkerLeaving("x"))
        raise BrokerUnavailableError("away")

    monkeypatch.setattr(ledger, "renew", away)
    with keeper.holding("a", claim(1), LAPSED) as lease:
        with pytest.raises(WorkerLeaving):
            keeper.confirm(lease)


def test_a_reason_to_end_is_heard_though_the_lease_is_valid(keeper: Keeper) -> None:
    with keeper.holding("a", claim(1), time.monotonic()) as lease:
        lease.control.stop(WorkerLeaving("x"))
        with pytest.raises(WorkerLeaving):
            keeper.confirm(lease)


# Ending jobs


def test_all_jobs_or_one_are_told_to_end(keeper: Keeper) -> None:
    def ended(lease: Lease) -> bool:
        return not lease.control.stop(WorkerLeaving("probe"))

    now = time.monotonic()
    with keeper.holding("a", claim(1), now) as a, keeper.holding("b", claim(1), now) as b:
        keeper.stop_jobs(JobCancelledError("x"), "a")
        keeper.stop_jobs(JobCancelledError("x"), "of another worker")
        assert (ended(a), ended(b)) == (True, False)
    with keeper.holding("a", claim(2), now) as a, keeper.holding("b", claim(2), now) as b:
        keeper.stop_jobs(WorkerLeaving("x"))
        assert (ended(a), ended(b)) == (True, True)


def test_a_job_that_raised_is_held_no_more(keeper: Keeper, ledger: Ledger, around: Round) -> None:
    with pytest.raises(KeyError), keeper.holding("a", claim(1), time.monotonic()):
        raise KeyError
    around()
    assert ledger.renewed == []


# What others know


def test_others_are_told_whether_this_worker_takes_jobs(worker: Worker, around: Round) -> None:
    assert around()
    worker.takes_jobs = False
    assert not around()


def test_others_are_told_though_nothing_is_held(ledger: Ledger, around: Round) -> None:
    assert around()
    assert ledger.renewed == []


def test_a_worker_that_ends_says_so_last(keeper: Keeper, ledger: Ledger) -> None:
    keeper.start()
    keeper.stop()
    told = [ledger.announced.get_nowait() for _ in range(ledger.announced.qsize())]
    assert told[-1] is False
    assert not keeper._thread.is_alive()


def test_a_worker_may_end_before_it_began_and_without_a_ledger(
    keeper: Keeper, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> None:
        raise BrokerUnavailableError("away")

    monkeypatch.setattr(ledger, "announce", away)
    keeper.stop()


def test_prompts_that_others_gave_up_are_stopped_here_and_struck_off(
    ledger: Ledger, worker: Worker, around: Round
) -> None:
    ledger.orders = ["p1", "p2-unreachable", "p3"]
    around()
    assert ledger.struck_off.get(timeout=PATIENCE) == ["p1", "p3"]
    assert worker.stopped == ["p1", "p2-unreachable", "p3"]


def test_a_server_that_is_slow_to_stop_a_prompt_holds_up_no_lease(
    keeper: Keeper, ledger: Ledger, worker: Worker, around: Round
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slowly(prompt_id: str) -> bool:
        begun.set()
        worker.stopped.append(prompt_id)
        return go_on.wait(PATIENCE)

    keeper._stop_prompt = slowly
    ledger.orders = ["p1"]
    around()
    assert begun.wait(PATIENCE)
    with keeper.holding("a", claim(1), LAPSED) as lease:
        around()
        around()
        assert lease.valid_until > time.monotonic()
    # Nor is it asked twice at once.
    assert worker.stopped == ["p1"]
    ledger.orders = []
    go_on.set()
    assert ledger.struck_off.get(timeout=PATIENCE) == ["p1"]


def test_a_server_that_is_down_is_not_asked_to_stop_anything(
    ledger: Ledger, worker: Worker, around: Round
) -> None:
    worker.takes_jobs = False
    ledger.orders = ["p1"]
    around()
    around()
    assert worker.stopped == []
    assert ledger.struck_off.empty()


@pytest.mark.parametrize("away", [False, True])
def test_a_prompt_that_could_not_be_stopped_is_left_to_whoever_is_here_next(
    keeper: Keeper, ledger: Ledger, away: bool
) -> None:
    ledger.errors = [BrokerUnavailableError("away")] * away
    keeper.order_stop("p1")
    assert ledger.ordered == [("here", "p1")] * (not away)


# Leaving


def test_what_is_held_is_said_to_be_left(keeper: Keeper, ledger: Ledger, around: Round) -> None:
    with keeper.holding("a", claim(1), time.monotonic()) as lease:
        keeper.announce_leaving()
        assert ledger.left == [("a", 1)]
        # The others hear at once that they cannot count on this worker; its jobs go on.
        ledger.announced.get(timeout=PATIENCE)
        lease.control.check()
    assert around()


def test_who_cannot_say_so_leaves_all_the_same(keeper: Keeper, ledger: Ledger) -> None:
    ledger.errors = [BrokerUnavailableError("away")]
    with keeper.holding("a", claim(1), time.monotonic()):
        keeper.announce_leaving()
    assert ledger.left == []


def test_leaving_ends_what_runs_and_what_is_only_about_to(keeper: Keeper) -> None:
    with keeper.holding("a", claim(1), time.monotonic()) as running:
        keeper.leave(WorkerLeaving("x"))
        with keeper.holding("b", claim(1), time.monotonic()) as late:
            for lease in (running, late):
                with pytest.raises(WorkerLeaving):
                    lease.control.check()


# The ledger's time


def test_a_lease_knows_the_ledgers_time(keeper: Keeper) -> None:
    # The claim's answer was made at some moment after it was asked for: never later than this.
    with keeper.holding("a", claim(1, now=5000.0), time.monotonic() - 60.0) as lease:
        assert lease.now() == pytest.approx(5060.0, abs=5.0)
