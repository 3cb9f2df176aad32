"""What commands on the fleet make of what they are told."""

import threading
from collections.abc import Iterator
from datetime import datetime
from types import SimpleNamespace
from typing import Any, Self

import pytest
import typer

from cli import job_ids
from cli.cancel import Fate, exit_code
from cli.exit_codes import ExitCode
from cli.finding import Found
from cli.job_ids import complete_job
from cli.jobs import Row, newest
from cli.queue import backlog_json, oldest_words
from cli.show import Story, as_told
from cli.snapshot import Snapshot
from cli.states import CELERY, Kind, complete_kind, kind_of, ledger_states, read_kind
from cli.status import as_flat
from cli.timeline import moments
from cli.times import clock, duration, read_moment
from cli.top import parts
from tasks.errors import PromptLostError
from tasks.result import Attempt, Progress
from workers.broker.backlog import Backlog
from workers.ledger.fleet import Heard, State, WorkerJob, WorkerStatus
from workers.ledger.jobs import STATES

NOW = 1_000_000.0
ATTEMPT = Attempt(number=1, instance="http://a", prompt_id="p", error="X: x", seconds=1.0)
PROGRESS = Progress(
    stage="executing", value=0.5, node_id="1", class_type="K", step=2, steps=4, instance="http://b"
)


class Ledger:
    """Knows two jobs, and may say nothing until it is let."""

    def __init__(self, let: threading.Event) -> None:
        self._let = let
        self.jobs = self

    def latest(self, *, limit: int) -> list[Any]:
        self._let.wait(60)
        return [SimpleNamespace(job_id=one) for one in ("a1", "b2")][:limit]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def let(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    one = threading.Event()
    monkeypatch.setattr("workers.ledger.Ledger", lambda _url: Ledger(one))
    yield one
    one.set()


def test_ids_are_completed(let: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_ids, "_ASK_SECONDS", 60.0)
    let.set()
    assert complete_job("a") == ["a1"]


@pytest.mark.usefixtures("let")
def test_a_redis_that_says_nothing_holds_up_no_shell(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(job_ids, "_ASK_SECONDS", 0.01)
    assert complete_job("a") == []
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("1.5m", 90), (" 2h ", 7200), ("1d", 86_400)]
)
def test_so_long_ago(text: str, seconds: float) -> None:
    assert read_moment("--since", text, NOW) == NOW - seconds


def test_a_date_is_of_this_machines_clock_unless_it_says_otherwise() -> None:
    assert read_moment("--since", "2026-01-31T12:00+00:00") == 1_769_860_800
    local = datetime(2026, 1, 31).astimezone().timestamp()
    assert read_moment("--since", "2026-01-31") == local


@pytest.mark.parametrize("text", ["", "soon", "5", "5y", "-1h", "2026-13-01"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="found .*expected a time such as 15m"):
        read_moment("--since", text)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-1, "0.0 s"),
        (9.94, "9.9 s"),
        (59.6, "60 s"),
        (125, "2 min 5 s"),
        (7260, "2 h 1 min"),
        (200_000, "2 d 7 h"),
    ],
)
def test_durations_are_short(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_a_moment_is_told_with_its_zone() -> None:
    assert clock(0) == "1970-01-01 00:00:00 UTC"


def test_states_have_one_word_for_people_and_celerys_for_programs() -> None:
    assert {kind_of(state) for state in STATES} == set(Kind) - {Kind.WAITING}
    assert ledger_states([Kind.WAITING]) == []
    assert ledger_states([Kind.FAILED, Kind.RETRYING]) == ["waiting", "failed"]
    for kind, word in CELERY.items():
        assert read_kind(word) is read_kind(word.lower()) is read_kind(kind.upper()) is kind
    with pytest.raises(typer.BadParameter, match=r"found 'faild'.*did you mean 'failed'\?"):
        read_kind("faild")
    assert complete_kind("R") == ["running", "retrying"]


def test_the_newest_come_first() -> None:
    rows = [
        Row("old", Kind.FAILED, 10.0),
        Row("bare", Kind.WAITING, None),
        Row("new", Kind.SUCCEEDED, 30.0),
        Row("middle", Kind.RUNNING, 20.0),
    ]
    assert [row.job_id for row in newest(rows, 3, 0.0)] == ["bare", "new", "middle"]
    assert [row.job_id for row in newest(rows, 9, 20.0)] == ["bare", "new", "middle"]
    assert newest([], 5, 0.0) == []


FLAT = dict.fromkeys(
    ("stage", "value", "node_id", "class_type", "step", "steps", "instance", "error")
)


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (Found("PENDING"), {"state": "PENDING"}),
        (
            Found("PROGRESS", progress=PROGRESS),
            {"state": "PROGRESS", **PROGRESS.model_dump()},
        ),
        (
            Found("SUCCESS", {"instance": "http://c"}),
            {"state": "SUCCESS", "value": 1.0, "instance": "http://c"},
        ),
        (
            Found("FAILURE", None, PromptLostError("gone"), [ATTEMPT]),
            {
                "state": "FAILURE",
                "instance": "http://a",
                "error": {"type": "PromptLostError", "message": "gone"},
            },
        ),
        (Found("UNKNOWN"), {"state": "UNKNOWN"}),
    ],
    ids=lambda value: value.state if isinstance(value, Found) else "",
)
def test_a_status_has_the_same_names_in_each_state(found: Found, told: dict[str, Any]) -> None:
    assert as_flat("j", found) == {"job_id": "j", **FLAT, **told}


@pytest.mark.parametrize(
    ("fates", "code"),
    [
        ([], ExitCode.OK),
        ([Fate("a", "cancelled"), Fate("b", "stopping"), Fate("c", "running")], ExitCode.OK),
        ([Fate("a", "ended", "cancelled")], ExitCode.OK),
        ([Fate("a", "ended", "succeeded"), Fate("b", "cancelled")], ExitCode.FAILED),
        ([Fate("a", "unknown"), Fate("b", "ended", "failed")], ExitCode.UNKNOWN),
    ],
)
def test_cancelling_ends_with_the_worst_that_it_has_met(fates: list[Fate], code: int) -> None:
    assert exit_code(fates) == code


def test_each_fate_is_a_sentence() -> None:
    assert Fate("a", "ended", "cancelled").sentence == "job a was cancelled before"
    assert Fate("a", "ended", "failed").sentence == "job a has failed before"
    assert Fate("a", "stopping").sentence == "job a is being stopped"


def test_a_story_is_told_in_lines() -> None:
    lines = [
        {"event": "taken", "at": 2.0, "worker": "w", "enqueued_at": 1.0},
        {
            "event": "attempt_began",
            "at": 2.1,
            "number": 1,
            "start": "submit",
            "instance": "http://a",
            "prompt_id": "p",
        },
        {"event": "stage_ended", "at": 3.0, "stage": "staging", "seconds": 0.9},
        {"event": "file_stored", "at": 3.5, "node_id": "9", "key": "k", "size_bytes": 1},
        {"event": "attempt_ended", "at": 4.0, "number": 1, "error": "X: x", "again_in": 2.0},
        {"event": "taken", "at": 6.0, "worker": "v", "enqueued_at": 1.0},
        {
            "event": "attempt_began",
            "at": 6.0,
            "number": 2,
            "start": "collect",
            "instance": "http://a",
            "prompt_id": "p",
        },
        {"event": "attempt_ended", "at": 7.0, "number": 2, "error": None, "again_in": None},
        {"event": "ended", "at": 7.0, "outcome": "succeeded", "error": None},
        {"event": "something of a later version", "at": 8.0},
        {"no": "event"},
    ]
    assert [(one.at, one.text) for one in moments(lines)] == [
        (1.0, "enqueued"),
        (2.0, "taken by w"),
        (2.1, "attempt 1 begins on http://a"),
        (3.0, "staging took 0.9 s"),
        (4.0, "attempt 1 failed; again in 2.0 s: X: x"),
        (6.0, "taken by v"),
        (6.0, "attempt 2 collects what http://a has rendered"),
        (7.0, "succeeded"),
    ]


def test_a_story_of_a_job_that_runs_has_the_files_so_far() -> None:
    line = {"event": "file_stored", "at": 1.0, "node_id": "9", "key": "k", "size_bytes": 7}
    told = as_told(Story("j", Found("PROGRESS", progress=PROGRESS), [line]))
    assert told == {
        "job_id": "j",
        "state": "PROGRESS",
        "progress": PROGRESS.model_dump(),
        "error": None,
        "timeline": [line],
        "attempts": [],
        "files": [{"node_id": "9", "key": "k", "size_bytes": 7}],
        "timings": None,
        "manifest": None,
    }


def test_a_backlog_says_what_is_known() -> None:
    known = Backlog({"0": 2, "3": 1}, 90.0, 4, {"l": 1})
    assert backlog_json(known) == {
        "depth": 3,
        "waiting": {"0": 2, "3": 1},
        "lanes": {"l": 1},
        "oldest_seconds": 90.0,
        "taken": 4,
    }
    assert oldest_words(known) == "90 s"
    assert oldest_words(Backlog({"normal": 1}, None, 0)) == "not known"
    assert oldest_words(Backlog({"normal": 0}, None, 0)) == ""


def worker(state: State, *jobs: str) -> WorkerStatus:
    told = [WorkerJob(job_id=job, stage="executing", since=NOW) for job in jobs]
    about = {"id": state, "worker": state, "instance": "", "version": "1", "started_at": NOW}
    return WorkerStatus(**about, state=state, slots=12, jobs=tuple(told))


def test_the_slots_of_the_fleet_are_of_those_who_can_use_them() -> None:
    told = [(worker("busy", "a", "b"), 1.0), (worker("spare"), 1.0), (worker("ready"), 99.0)]
    workers = [Heard(*one) for one in told]
    summary = parts(Snapshot(NOW, workers, Backlog({}, None, 0), {"1 h": {}}, []))[0]
    assert "1 workers, 1 spare, 1 gone  ·  2 jobs in 12 slots" in str(summary)
