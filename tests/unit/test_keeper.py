"""The keeper of leases, with a ledger that answers as the test says and a thread that is nudged."""

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from types import SimpleNamespace

import pytest

from tasks.errors import BrokerUnavailableError, JobCancelledError
from workers.execution import keeper as module
from workers.execution.appetite import MOST_AHEAD, Appetite
from workers.execution.control import LeaseLost, WorkerLeaving
from workers.execution.keeper import Keeper, Lease, Phase
from workers.ledger import Claimed, Record
from workers.ledger.ledger import CANCEL, LEASE_SECONDS, LOST, OURS, RENEW_SECONDS
from workers.routing.pace import Pace

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
    is_tired = False
    server_answers = True

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
    monkeypatch.setattr(module, "_JOIN_SECONDS", PATIENCE)
    return Keeper(
        ledger,  # type: ignore[arg-type]
        "here",
        pace=Pace(),
        takes_jobs=lambda: worker.takes_jobs,
        is_tired=lambda: worker.is_tired,
        server_answers=lambda: worker.server_answers,
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
    worker.server_answers = False
    ledger.orders = ["p1"]
    around()
    around()
    assert worker.stopped == []
    assert ledger.struck_off.empty()


def test_a_server_in_quarantine_is_asked_to_stop_what_keeps_it_there(
    ledger: Ledger, worker: Worker, around: Round
) -> None:
    worker.takes_jobs = False
    ledger.orders = ["p1"]
    around()
    assert ledger.struck_off.get(timeout=PATIENCE) == ["p1"]
    assert worker.stopped == ["p1"]


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


# What the GPU has to do


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    one = Clock()
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=one.monotonic))
    return one


Hold = Callable[..., Lease]


@pytest.fixture
def hold(keeper: Keeper, clock: Clock) -> Iterator[Hold]:
    """Holds one more job for the rest of the test."""
    with ExitStack() as held:

        def one(phase: Phase = Phase.WAITING, **state: object) -> Lease:
            job_id = f"job {len(keeper._leases)}"
            lease = held.enter_context(keeper.holding(job_id, claim(1), clock.now))
            lease.phase, lease.bound_until = phase, float("-inf")
            for name, value in state.items():
                setattr(lease, name, value)
            return lease

        yield one


def test_a_job_waits_until_more_is_known(keeper: Keeper, clock: Clock) -> None:
    with keeper.holding("job", claim(1), clock.now) as lease:
        pass
    assert (lease.phase, lease.queued_at) == (Phase.WAITING, None)
    # And whether it is meant for just this server is not known yet.
    assert lease.bound_until == float("inf")
    assert not lease.control.wanted_elsewhere


def test_with_nothing_to_execute_any_job_is_taken(keeper: Keeper) -> None:
    assert keeper.appetite(0) is Appetite.HUNGER


def test_what_is_still_being_told_of_needs_no_gpu(keeper: Keeper, clock: Clock) -> None:
    with keeper.holding("job", claim(1), clock.now) as lease:
        keeper.store(lease)
        assert keeper.appetite(1) is Appetite.HUNGER
    # Its result is not in the backend yet, nor its message acknowledged.
    assert keeper.appetite(1) is Appetite.HUNGER
    assert keeper.appetite(2) is Appetite.AHEAD
    keeper.settle("job")
    keeper.settle("another")
    assert keeper.appetite(0) is Appetite.HUNGER
    assert keeper.appetite(1) is Appetite.AHEAD


def test_what_ended_before_it_was_executed_is_not_being_told_of(
    keeper: Keeper, clock: Clock
) -> None:
    # It comes again, or has failed.
    with keeper.holding("job", claim(1), clock.now):
        pass
    assert keeper.appetite(1) is Appetite.AHEAD


def test_jobs_that_were_taken_over_an_earlier_connection_count(keeper: Keeper, hold: Hold) -> None:
    hold(Phase.EXECUTING)
    assert keeper.appetite(0) is Appetite.AHEAD


def test_one_job_is_taken_ahead(keeper: Keeper, hold: Hold) -> None:
    hold(Phase.EXECUTING)
    assert keeper.appetite(1) is Appetite.AHEAD
    # One that has reached this worker, but no lease yet, counts as well.
    assert keeper.appetite(2) is Appetite.NONE


def test_what_is_being_stored_is_nothing_that_the_gpu_has_to_do(keeper: Keeper, hold: Hold) -> None:
    for _ in range(5):
        keeper.store(hold(Phase.EXECUTING))
    assert keeper.appetite(5) is Appetite.HUNGER
    hold(Phase.EXECUTING)
    assert keeper.appetite(6) is Appetite.AHEAD
    hold()
    assert keeper.appetite(7) is Appetite.NONE


def test_what_its_jobs_need_the_gpu_for_is_told_as_it_changes(keeper: Keeper, clock: Clock) -> None:
    seen: list[list[Phase]] = []
    keeper.follow(lambda: seen.append(keeper.phases))
    with keeper.holding("job", claim(1), clock.now) as lease:
        assert keeper.phases == [Phase.WAITING]
        keeper.execute(lease)
        keeper.execute(lease)
        keeper.store(lease, 0.1)
        # What the server says of its beginning may come late.
        keeper.execute(lease)
    assert seen == [[Phase.EXECUTING], [Phase.STORING], []]


def test_of_short_jobs_more_are_taken_ahead(keeper: Keeper, hold: Hold) -> None:
    keeper.store(hold(Phase.EXECUTING), 0.1)
    stored = 1
    assert keeper.appetite(stored + MOST_AHEAD) is Appetite.AHEAD
    assert keeper.appetite(stored + MOST_AHEAD + 1) is Appetite.NONE


def test_how_long_jobs_take_is_learnt_from_many_and_from_the_last_most(
    keeper: Keeper, hold: Hold
) -> None:
    def ahead() -> int:
        stored = len(keeper._leases)
        return max(n for n in range(MOST_AHEAD + 2) if keeper.appetite(stored + n).value != "none")

    assert ahead() == 1
    keeper.store(hold(), 0.1)
    assert ahead() == 3
    # From the cache, or from somebody else's server: that says nothing.
    keeper.store(hold(), None)
    assert ahead() == 3
    keeper.store(hold(), 0.3)
    assert ahead() == 2
    for _ in range(20):
        keeper.store(hold(), 60.0)
    assert ahead() == 1
    for _ in range(40):
        keeper.store(hold(), 0.1)
    assert ahead() == 3


def test_whoever_wants_to_know_hears_each_time_that_the_gpu_has_done_with_a_job(
    keeper: Keeper, hold: Hold
) -> None:
    heard: list[tuple[str, Appetite]] = []
    for name in ("first", "second"):
        # What it is told for is true by then.
        keeper.subscribe(lambda name=name: heard.append((name, keeper.appetite(1))))
    lease = hold(Phase.EXECUTING)
    assert heard == []
    keeper.store(lease, 1.0)
    assert heard == [("first", Appetite.HUNGER), ("second", Appetite.HUNGER)]
    assert lease.phase is Phase.STORING


def test_who_waits_long_for_its_files_keeps_no_other_job_from_the_gpu(
    keeper: Keeper, hold: Hold
) -> None:
    slow = hold()
    assert keeper.appetite(1) is Appetite.AHEAD
    assert not keeper.is_idle
    slow.taken_at -= module._STAGING_SECONDS
    assert keeper.appetite(1) is Appetite.HUNGER
    assert keeper.is_idle
    # Its files have come.
    slow.queued_at = time.monotonic()
    assert keeper.appetite(1) is Appetite.AHEAD
    assert not keeper.is_idle


# What a server elsewhere could begin


def test_the_spare_job_is_the_last_one_that_waits(keeper: Keeper, hold: Hold) -> None:
    assert keeper.spare is None
    hold(Phase.EXECUTING)
    assert keeper.spare is None
    for _ in range(3):
        lease = hold()
        assert keeper.spare is lease


def test_the_next_one_to_execute_is_not_spare(keeper: Keeper, hold: Hold) -> None:
    hold(Phase.STORING)
    # The GPU that it has been taken for has nothing else to do.
    hold()
    hold(Phase.STORING)
    assert keeper.spare is None
    behind = hold()
    assert keeper.spare is behind


def test_what_executes_or_is_stored_is_not_spare(keeper: Keeper, hold: Hold) -> None:
    hold(Phase.EXECUTING)
    waiting = hold()
    # Whatever came first: the server has its own order.
    hold(Phase.EXECUTING)
    hold(Phase.STORING)
    assert keeper.spare is waiting
    keeper.store(waiting)
    assert keeper.spare is None


def test_what_is_meant_for_this_server_is_not_spare(keeper: Keeper, hold: Hold) -> None:
    hold(Phase.EXECUTING)
    movable = hold()
    hold(bound_until=float("inf"))
    assert keeper.spare is movable
    movable.bound_until = float("inf")
    assert keeper.spare is None


def test_what_was_meant_for_this_server_is_spare_when_its_time_is_over(
    keeper: Keeper, hold: Hold, clock: Clock
) -> None:
    hold(Phase.EXECUTING)
    lease = hold()
    lease.bound_until = lease.now() + 6.0
    assert keeper.spare is None
    clock.now += 5.9
    assert keeper.spare is None
    clock.now += 0.2
    assert keeper.spare is lease


def test_what_is_given_away_already_is_not_spare(keeper: Keeper, hold: Hold) -> None:
    hold(Phase.EXECUTING)
    first, second = hold(), hold()
    keeper.hand_over(second)
    assert keeper.spare is first
    keeper.hand_over(first)
    assert keeper.spare is None


def test_the_next_one_is_spare_once_it_stands_behind_somebody_elses(
    keeper: Keeper, hold: Hold, clock: Clock
) -> None:
    lease = hold()
    clock.now += 60.0
    # Its inputs take their time.
    assert keeper.spare is None
    lease.queued_at = clock.now
    assert keeper.spare is None
    clock.now += 1.0
    assert keeper.spare is None
    clock.now += 0.1
    assert keeper.spare is lease
    lease.bound_until = float("inf")
    assert keeper.spare is None


def test_the_last_one_is_spare_before_the_next_one(
    keeper: Keeper, hold: Hold, clock: Clock
) -> None:
    first, second = hold(queued_at=clock.now - 60.0), hold()
    assert keeper.spare is second
    keeper.hand_over(second)
    assert keeper.spare is first


def test_who_gives_a_job_away_leaves_the_next_one_to_others_for_a_moment(
    keeper: Keeper, clock: Clock
) -> None:
    woken: list[None] = []
    with (
        keeper.holding("job", claim(1), clock.now) as lease,
        lease.control.waking(lambda: woken.append(None)),
    ):
        keeper.hand_over(lease)
    assert (lease.control.wanted_elsewhere, len(woken)) == (True, 1)
    lease.control.check()
    assert keeper.appetite(0) is Appetite.AHEAD
    clock.now += module._POLITE_SECONDS
    assert keeper.appetite(0) is Appetite.HUNGER


# Without asking


def test_a_job_is_ours_beyond_doubt_while_its_lease_is(
    keeper: Keeper, hold: Hold, clock: Clock
) -> None:
    lease = hold()
    assert keeper.is_sure(lease)
    clock.now += LEASE_SECONDS - module._MARGIN - 0.1
    assert keeper.is_sure(lease)
    clock.now += 0.2
    assert not keeper.is_sure(lease)


def test_a_job_that_somebody_else_has_is_not_ours(
    keeper: Keeper, ledger: Ledger, around: Round
) -> None:
    ledger.answers = {"a": LOST}
    with keeper.holding("a", claim(1), time.monotonic()) as lease:
        assert keeper.is_sure(lease)
        around()
        assert not keeper.is_sure(lease)
