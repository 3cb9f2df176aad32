"""Which server a worker takes, how it keeps it, and what it does when it has lost it."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Self

import pytest

from tasks.errors import BrokerUnavailableError, ComfyUIUnavailableError
from workers.execution.control import Control, ServerLost, WorkerLeaving
from workers.execution.place import Place
from workers.ledger.ledger import LEASE_SECONDS
from workers.ledger.pins import Holder, Pin, Pins, Process
from workers.lifecycle import moving as moving_module
from workers.lifecycle import pinned as pinned_module
from workers.lifecycle import pinning as pinning_module
from workers.lifecycle import process as process_module
from workers.lifecycle.moving import DOWN_SECONDS, Moving
from workers.lifecycle.pinned import Pinned
from workers.lifecycle.pinning import LOOK_SECONDS, Candidate, Pinning, in_order, seen
from workers.lifecycle.probing import answering
from workers.lifecycle.process import is_gone, own

A, B, C, D = (f"http://{name}:8188" for name in "abcd")
ELSEWHERE = Process(boot="another", namespaces="n", pid=1, started="1")
HOLDER = Holder(worker="a-8188@one", host="one", process=ELSEWHERE)
HELD = Pin(token=7, seconds=9.0, let_go=False, since=1_000_000_000.0, holder=HOLDER)
LAPSED = replace(HELD, seconds=-1.0)
LET_GO = replace(HELD, seconds=-1e9, let_go=True)


@dataclass
class Fleet:
    """The leases, on paper."""

    pins: dict[str, Pin | None] = field(default_factory=dict)
    taken: list[tuple[str, int | None]] = field(default_factory=list)
    lost: set[str] = field(default_factory=set)
    let_go_of: list[str] = field(default_factory=list)
    fault: BaseException | None = None
    ours: bool = True
    renewals: int = 0

    def look(self, places: Sequence[str]) -> list[Pin | None]:
        if self.fault:
            raise self.fault
        return [self.pins.get(place) for place in places]

    def take(self, place: str, holder: Holder, nonce: str, gone: int | None = None) -> int | None:
        assert holder == Holder(worker=f"w at {place}", host=Place.of(A).host, process=own())
        assert nonce
        self.taken.append((place, gone))
        return None if place in self.lost else 8

    def renew(self, *_: object) -> bool:
        self.renewals += 1
        if self.fault:
            raise self.fault
        return self.ours

    def let_go(self, place: str, _nonce: str) -> None:
        self.let_go_of.append(place)

    def close(self) -> None:
        pass


@dataclass
class Waiting:
    """A worker that looks for a server, on a clock that does not wait."""

    fleet: Fleet
    urls: Sequence[str] = (A, B, C)
    answers: frozenset[str] = frozenset({A, B, C})
    probed: list[Sequence[str]] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)
    on_sleep: Callable[[], None] = lambda: None
    began_to_log: int = 0
    vain: int = 0

    def take(self) -> tuple[str, Pinned]:
        def on_vain() -> None:
            self.vain += 1

        return self.pinning.take(on_vain)

    @property
    def pinning(self) -> Pinning:
        def probe(urls: Sequence[str]) -> frozenset[str]:
            self.probed.append(urls)
            return self.answers & frozenset(urls)

        def sleep(seconds: float) -> None:
            self.slept.append(seconds)
            self.on_sleep()

        def on_wait() -> None:
            self.began_to_log += 1

        return Pinning(
            self.fleet,  # type: ignore[arg-type]
            self.urls,
            name=lambda url: f"w at {url}",
            answering=probe,
            on_wait=on_wait,
            sleep=sleep,
        )


# Which one


@pytest.mark.parametrize(
    ("pin", "is_free", "gone"),
    [(None, True, None), (HELD, False, None), (LAPSED, True, 7), (LET_GO, True, None)],
)
def test_a_server_is_free_when_nobody_has_it_any_more(
    pin: Pin | None, is_free: bool, gone: int | None
) -> None:
    (one,) = seen([A], [pin], own())
    assert (one.is_free, one.gone) == (is_free, gone)


def test_a_holder_whose_process_is_gone_has_it_no_more() -> None:
    here = own()
    dead = HOLDER.model_copy(update={"process": here.model_copy(update={"started": "0"})})
    (one,) = seen([A], [replace(HELD, holder=dead)], here)
    assert (one.is_free, one.gone) == (True, 7)


def test_servers_that_answer_come_first_and_of_these_what_a_dead_worker_has_left() -> None:
    free = [
        Candidate(A, None, is_free=True),
        Candidate(B, LET_GO, is_free=True),
        Candidate(C, LAPSED, is_free=True),
        Candidate(D, None, is_free=True),
    ]
    assert [one.url for one in in_order(free, frozenset({B, C, D}))] == [C, B, D, A]
    assert [one.url for one in in_order(free, frozenset())] == [C, A, B, D]


def test_the_first_free_one_is_taken_without_a_wait() -> None:
    waiting = Waiting(Fleet({A: HELD}))
    url, pinned = waiting.take()
    assert (url, pinned.token, pinned.is_sure) == (B, 8, True)
    assert waiting.probed == [[B, C]]
    assert (waiting.slept, waiting.began_to_log, waiting.fleet.let_go_of) == ([], 0, [])


def test_one_that_is_taken_by_another_worker_in_between_is_not_waited_for() -> None:
    waiting = Waiting(Fleet(lost={A}))
    assert waiting.take()[0] == B
    assert (waiting.fleet.taken, waiting.slept) == ([(A, None), (B, None)], [])


def test_of_one_alone_it_is_not_asked_whether_it_answers() -> None:
    waiting = Waiting(Fleet({A: HELD, B: HELD}), answers=frozenset())
    assert waiting.take()[0] == C
    assert waiting.probed == []


def test_two_spellings_of_a_loopback_are_one_server() -> None:
    fleet = Fleet({Place.of("http://localhost:1").key: HELD})
    waiting = Waiting(fleet, urls=["http://127.0.0.1:1", A])
    assert waiting.take()[0] == A


def test_a_spare_says_who_has_them_and_takes_what_becomes_free(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    waiting = Waiting(Fleet({A: HELD, B: HELD, C: HELD}))

    def become_free() -> None:
        if len(waiting.slept) == 3:
            waiting.fleet.pins[B] = LAPSED

    waiting.on_sleep = become_free
    assert waiting.take()[0] == B
    assert waiting.fleet.taken == [(B, 7)]
    assert waiting.slept == [LOOK_SECONDS] * 3
    assert waiting.vain == 3
    assert waiting.began_to_log == 1
    told, taken = (record.getMessage() for record in caplog.records)
    who = "by a-8188@one (on host one, since 2001-09-09 01:46:40 UTC)"
    assert told == (
        "this worker waits as a spare until a server is free: driven are "
        f"{A} {who}, {B} {who}, {C} {who}"
    )
    assert taken.startswith(f"this worker drives {B}, after ")


def test_who_was_given_one_server_hears_how_to_share_it(caplog: pytest.LogCaptureFixture) -> None:
    waiting = Waiting(Fleet({A: HELD}), urls=[A])
    waiting.on_sleep = waiting.fleet.pins.clear
    waiting.take()
    assert caplog.messages[0].endswith("; COMFYUI_SHARED=1 would let both drive it")


def test_of_many_holders_only_some_are_named(caplog: pytest.LogCaptureFixture) -> None:
    urls = [f"http://s{number}" for number in range(50)]
    waiting = Waiting(Fleet(dict.fromkeys(urls, HELD)), urls=urls)
    waiting.on_sleep = waiting.fleet.pins.clear
    waiting.take()
    assert caplog.messages[0].endswith(" and 46 more")


def test_a_spare_says_it_again_every_five_minutes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(
        pinning_module, "time", SimpleNamespace(monotonic=lambda: clock.now, sleep=None)
    )
    waiting = Waiting(Fleet({A: HELD}), urls=[A])

    def pass_by() -> None:
        clock.now += LOOK_SECONDS
        if clock.now >= 700:
            waiting.fleet.pins.clear()

    waiting.on_sleep = pass_by
    waiting.take()
    # At the beginning, after 300 s and after 600 s.
    assert sum("waits as a spare" in line for line in caplog.messages) == 3
    assert waiting.began_to_log == 1


def test_a_redis_that_is_away_is_waited_for_and_named_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    waiting = Waiting(Fleet(fault=BrokerUnavailableError("Redis did not answer (TimeoutError)")))

    def come_back() -> None:
        if len(waiting.slept) == 5:
            waiting.fleet.fault = None

    waiting.on_sleep = come_back
    assert waiting.take()[0] == A
    assert caplog.messages == [
        "no server can be taken: Redis did not answer (TimeoutError)",
    ]


def test_why_it_has_no_server_is_what_the_latest_look_has_shown() -> None:
    pinning = Waiting(fleet := Fleet({A: HELD, B: HELD, C: HELD})).pinning
    reasons = [pinning.reason]

    def on_vain() -> None:
        reasons.append(pinning.reason)
        if len(reasons) == 2:
            fleet.fault = BrokerUnavailableError("Redis did not answer (TimeoutError)")
        elif len(reasons) == 4:
            fleet.fault = None
        elif len(reasons) == 5:
            fleet.pins = {}

    pinning.take(on_vain)
    who = "by a-8188@one (on host one, since 2001-09-09 01:46:40 UTC)"
    driven = f"this worker waits as a spare until a server is free: driven are {A} {who}, "
    away = "no server can be taken: Redis did not answer (TimeoutError)"
    told = ["no server was taken yet", driven, away, away, driven]
    assert [one[: len(driven)] for one in reasons] == told


def test_a_spare_that_is_asked_to_end_leaves_nothing_behind() -> None:
    waiting = Waiting(Fleet({A: HELD, B: HELD, C: HELD}))

    def end() -> None:
        raise SystemExit(0)

    waiting.on_sleep = end
    with pytest.raises(SystemExit):
        waiting.take()
    assert waiting.fleet.let_go_of == []


def test_what_was_taken_just_when_it_is_asked_to_end_is_free_again() -> None:
    waiting = Waiting(Fleet({A: HELD}))

    def take(*_: object) -> int:
        raise SystemExit(0)

    waiting.fleet.take = take  # type: ignore[assignment,method-assign]
    with pytest.raises(SystemExit):
        waiting.take()
    assert waiting.fleet.let_go_of == [B]


def test_another_one_is_free_only_if_it_answers() -> None:
    waiting = Waiting(Fleet({A: HELD, B: None, C: HELD}), answers=frozenset({A, C}))
    assert not waiting.pinning.is_another_free(A)
    waiting.answers = frozenset({B})
    assert waiting.pinning.is_another_free(A)
    # Its own is none.
    assert not waiting.pinning.is_another_free(B)


def test_a_server_that_refuses_does_not_answer() -> None:
    class Server:
        def __init__(self, url: str) -> None:
            self.url = url

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def queue(self) -> None:
            if self.url == B:
                raise ComfyUIUnavailableError("x")

    assert answering([A, B, C], Server) == {A, C}  # type: ignore[arg-type]


# How it is kept


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The monotonic clock of what is pinned."""
    one = SimpleNamespace(now=1000.0)
    one.monotonic = lambda: one.now
    monkeypatch.setattr(pinned_module, "time", one)
    return one


def pinned(fleet: Fleet, clock: SimpleNamespace) -> Pinned:
    pins: Pins = fleet  # type: ignore[assignment]
    return Pinned(pins, A, holder=HOLDER, nonce="n", token=8, taken_at=clock.now)


def test_a_lease_is_sure_until_shortly_before_its_end(clock: SimpleNamespace) -> None:
    one = pinned(Fleet(), clock)
    clock.now += LEASE_SECONDS - 2.1
    assert one.is_sure
    clock.now += 0.2
    assert not one.is_sure


def test_what_is_sure_is_confirmed_without_asking(clock: SimpleNamespace) -> None:
    fleet = Fleet()
    pinned(fleet, clock).confirm(Control())
    assert fleet.renewals == 0


def test_who_was_frozen_asks_before_it_goes_on(clock: SimpleNamespace) -> None:
    fleet = Fleet()
    one = pinned(fleet, clock)
    clock.now += 3600
    one.confirm(Control())
    assert fleet.renewals == 1
    assert one.is_sure


def test_who_has_lost_its_server_confirms_nothing_and_says_so_once(
    clock: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    fleet, told = Fleet(ours=False), []
    one = pinned(fleet, clock)
    one.subscribe(lambda: told.append("lost"))
    clock.now += LEASE_SECONDS
    for _ in range(2):
        with pytest.raises(ServerLost):
            one.confirm(Control())
    assert (fleet.renewals, told, one.is_lost, one.is_sure) == (1, ["lost"], True, False)
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith(f"another worker drives {A} now: ")


def test_who_subscribes_too_late_hears_of_it_nevertheless(clock: SimpleNamespace) -> None:
    told: list[str] = []
    one = pinned(Fleet(ours=False), clock)
    one._renew()
    one.subscribe(lambda: told.append("lost"))
    assert told == ["lost"]


def test_while_redis_is_away_no_prompt_is_confirmed_and_a_job_can_end(
    clock: SimpleNamespace,
) -> None:
    fleet = Fleet(fault=BrokerUnavailableError("x"))
    one = pinned(fleet, clock)
    clock.now += LEASE_SECONDS
    control = Control()
    control.stop(WorkerLeaving("x"))
    with pytest.raises(WorkerLeaving):
        one.confirm(control)
    # Nobody has told that the server is somebody else's.
    assert not one.is_lost


def test_what_was_let_go_of_is_confirmed_no_more(clock: SimpleNamespace) -> None:
    fleet = Fleet()
    one = pinned(fleet, clock)
    one.let_go()
    assert fleet.let_go_of == [A]
    with pytest.raises(ServerLost):
        one.confirm(Control())
    assert fleet.renewals == 0


# Processes


def test_this_process_is_there_and_was_another_one_before() -> None:
    here = own()
    assert here.pid == os.getpid()
    parent = here.model_copy(
        update={"pid": os.getppid(), "started": process_module._started(os.getppid())}
    )
    assert not is_gone(parent, here)
    # What it was before it began anew.
    assert is_gone(here, here)


def test_a_process_that_began_at_another_time_is_another_one() -> None:
    here = own()
    assert is_gone(here.model_copy(update={"started": "1"}), here)


def test_of_one_that_could_not_tell_when_it_began_its_id_counts() -> None:
    parent = own().model_copy(update={"pid": os.getppid(), "started": ""})
    assert not is_gone(parent, own())


@pytest.mark.parametrize("change", [{"boot": "x"}, {"namespaces": "x"}])
def test_of_another_machine_or_container_nothing_is_known(change: dict[str, str]) -> None:
    here = own()
    assert not is_gone(here.model_copy(update={"started": "1", **change}), here)


def test_where_processes_cannot_be_told_apart_none_is_gone() -> None:
    assert not is_gone(Process(), Process())
    assert not is_gone(Process(pid=1), Process(pid=2))


@pytest.mark.parametrize("error", [PermissionError, ProcessLookupError])
def test_one_that_is_hidden_is_not_gone(
    monkeypatch: pytest.MonkeyPatch, error: type[OSError]
) -> None:
    def kill(_pid: int, _number: int) -> None:
        raise error

    here = own()
    monkeypatch.setattr(process_module, "_state", lambda _: ("", ""))
    monkeypatch.setattr(process_module.os, "kill", kill)
    other = here.model_copy(update={"pid": here.pid + 1})
    assert is_gone(other, here) is (error is ProcessLookupError)


def test_one_that_has_ended_and_that_nobody_has_taken_note_of_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = own()
    other = here.model_copy(update={"pid": os.getppid()})
    monkeypatch.setattr(process_module, "_state", lambda _: ("Z", other.started))
    assert is_gone(other, here)


# Another server


@dataclass
class Down:
    """A worker's own server and the others."""

    answers: bool = False
    other: bool = True
    asked: int = 0
    moved: int = 0

    def is_another_free(self) -> bool:
        self.asked += 1
        return self.other

    def moving(self) -> Moving:
        return Moving(
            answers=lambda: self.answers, is_another_free=self.is_another_free, move=lambda: None
        )


@pytest.fixture
def began_at(monkeypatch: pytest.MonkeyPatch) -> float:
    monkeypatch.setattr(moving_module, "time", SimpleNamespace(monotonic=lambda: 100.0))
    return 100.0


def test_a_worker_moves_when_its_server_has_been_down_for_a_minute(began_at: float) -> None:
    down = Down()
    moving = down.moving()
    assert not moving.is_time(began_at + DOWN_SECONDS - 1)
    # Others are asked only when it matters.
    assert down.asked == 0
    assert moving.is_time(began_at + DOWN_SECONDS)


def test_it_stays_while_no_other_one_is_free(began_at: float) -> None:
    assert not Down(other=False).moving().is_time(began_at + 10 * DOWN_SECONDS)


def test_one_answer_in_between_begins_a_new_minute(began_at: float) -> None:
    down = Down(answers=True)
    moving = down.moving()
    assert not moving.is_time(began_at + 10 * DOWN_SECONDS)
    down.answers = False
    assert not moving.is_time(began_at + 11 * DOWN_SECONDS - 1)
    assert moving.is_time(began_at + 11 * DOWN_SECONDS)
