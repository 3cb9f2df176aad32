"""Lines of the log: one form for all, whatever is logged, and the job of each."""

import json
import logging
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from celery import signals
from hypothesis import given
from hypothesis import strategies as st

from tasks.app import TASK_NAME
from workers.broker.threads import TaskPool
from workers.logs import context, setup
from workers.logs.formats import ConsoleFormatter, JsonFormatter
from workers.logs.setup import write_logs_as
from workers.logs.texts import MOST_EXCEPTION, MOST_FIELD, MOST_MESSAGE

JOB = {"job_id": "a", "prompt_id": "p", "instance": "http://gpu:8188", "attempt": 1}


def record(message: object, *arguments: object, **known: Any) -> logging.LogRecord:
    made = logging.LogRecord("some.where", logging.INFO, "x.py", 1, message, arguments, None)
    made.created, made.msecs = 1795670610.137625, 137.0
    vars(made).update(known)
    return made


def line(*arguments: Any, **known: Any) -> dict[str, Any]:
    written = JsonFormatter().format(record(*arguments, **known))
    assert "\n" not in written
    assert written.isascii()
    return json.loads(written)


def shown(*arguments: Any, use_color: bool = False, **known: Any) -> str:
    text = ConsoleFormatter(use_color=use_color).format(record(*arguments, **known))
    head, _, rest = text.partition("INFO] ")
    assert head.endswith(": ")
    return rest


def test_a_line_for_programs() -> None:
    assert line("%d files", 2) == {
        "ts": "2026-11-26T05:23:30.137Z",
        "level": "INFO",
        "logger": "some.where",
        "message": "2 files",
    }


def test_it_has_what_is_known_of_the_job_and_its_own_fields() -> None:
    with context.about(job_id="a"):
        context.note(prompt_id="p", instance="http://gpu:8188", attempt=1)
        told = line("x", fields={"seconds": 0.5, "timings": {"staged": 1.0}, "nothing": None})
    assert list(told)[:4] == ["ts", "level", "logger", "message"]
    assert {name: told[name] for name in JOB} == JOB
    assert (told["seconds"], told["timings"], "nothing" in told) == (0.5, {"staged": 1.0}, False)
    assert "job_id" not in line("x")


def test_no_field_takes_the_place_of_another() -> None:
    told = line("x", fields={"ts": "never", "message": "y", "level": "z"})
    assert (told["ts"][:4], told["message"], told["level"]) == ("2026", "x", "INFO")


def test_an_exception_is_one_string() -> None:
    try:
        raise ValueError("at redis://:secret@host")
    except ValueError:
        told = line("x", exc_info=sys.exc_info())
    assert told["exception"].startswith("Traceback (most recent call last)")
    assert told["exception"].endswith("ValueError: at redis://...@host")


@pytest.mark.parametrize("before", [MOST_MESSAGE // 2 - back for back in (40, 25, 18)])
def test_no_password_of_a_url_is_written_wherever_its_line_is_cut(before: int) -> None:
    told = line("%s", "x" * before + " redis://user:hid@den@host " + "x" * MOST_MESSAGE)
    assert "user" not in told["message"]
    assert "den" not in told["message"]


class Rude:
    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("%d", ("x",)),
        ("%s %s", ("x",)),
        ("%(a)s", ({"b": 1},)),
        ("%s", (Rude(),)),
        (Rude(), ()),
        pytest.param("%d", (10**5000,), id="huge"),
        (None, ()),
    ],
)
def test_what_cannot_be_shown_is_said_to_be_so(message: object, arguments: tuple[Any, ...]) -> None:
    told = line(message, *arguments)["message"]
    assert told == "None" or "cannot be shown" in told
    assert shown(message, *arguments) == told


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        pytest.param(10**5000, "(a huge number)", id="huge"),
        (True, True),
        ("\ud800", "\ufffd"),
        ([1, 2], "[1, 2]"),
        (Rude(), "(Rude, which cannot be shown: RuntimeError)"),
        ({1: {2: 3}}, {"1": "{2: 3}"}),
    ],
)
def test_fields_are_values_that_all_programs_read(value: Any, written: Any) -> None:
    assert line("x", fields={"a": value})["a"] == written


@pytest.mark.parametrize("fields", [None, 7, "text", [("a", 1)]])
def test_fields_of_another_form_are_none(fields: Any) -> None:
    assert line("x", fields=fields).keys() == {"ts", "level", "logger", "message"}


def test_lines_are_bounded() -> None:
    fields = {f"f{n}": "x" * 10**6 for n in range(1000)}
    try:
        raise ValueError("y" * 10**6)
    except ValueError:
        told = line("%s", "m" * 10**6, fields=fields, exc_info=sys.exc_info())
    slack = 60
    assert len(told["message"]) <= MOST_MESSAGE + slack
    assert len(told["exception"]) <= MOST_EXCEPTION + slack
    assert told["exception"].startswith("Traceback")
    assert len(told["f0"]) <= MOST_FIELD + slack
    assert len(told) < 100


@given(st.text(), st.dictionaries(st.text(), st.one_of(st.text(), st.floats(), st.integers())))
def test_any_text_can_be_written(text: str, fields: dict[str, Any]) -> None:
    line("%s", text, fields=fields)
    ConsoleFormatter(use_color=True).format(record(text, fields=fields)).encode()


def test_a_line_for_people() -> None:
    assert shown("2 files") == "2 files"
    with context.about(job_id="a", attempt=1):
        assert shown("2 files") == "job a: 2 files"
        context.note(attempt=2)
        assert shown("2 files") == "job a #2: 2 files"
    assert shown("2 files") == "2 files"


def test_nothing_from_outside_begins_a_line_or_speaks_to_a_terminal() -> None:
    with context.about(job_id="a\n[2026-01-01 00:00:00,000: ERROR] b\x1b[31m"):
        assert shown("x\ny\x1b[2J\r").splitlines() == [
            "job a [2026-01-01 00:00:00,000: ERROR] b?[31m: x",
            "    y?[2J?",
        ]


def test_an_exception_for_people_has_its_lines() -> None:
    try:
        raise ValueError("no")
    except ValueError:
        first, *others = shown("x", exc_info=sys.exc_info()).splitlines()
    assert (first, others[-1]) == ("x", "    ValueError: no")


def test_colours_are_for_what_is_no_mere_information() -> None:
    assert "\x1b" not in shown("x", use_color=True)
    warning = record("x", levelname="WARNING", levelno=logging.WARNING)
    assert ConsoleFormatter(use_color=True).format(warning).endswith("x\x1b[0m")


@pytest.mark.parametrize(
    ("data", "job_id"),
    [
        ({"name": TASK_NAME, "id": "a"}, "a"),
        ({"name": "another", "id": "a"}, None),
        ({"name": TASK_NAME, "id": 7}, None),
        (None, None),
        ("text", None),
    ],
)
def test_celery_tells_in_its_own_way_of_which_job(data: Any, job_id: str | None) -> None:
    assert line("x", data=data).get("job_id") == job_id


def test_what_a_pools_thread_logs_is_of_the_job_that_it_works_for() -> None:
    seen: list[Mapping[str, Any]] = []
    pool = TaskPool(1, app=None)
    pool.on_start()

    def task(*_: Any) -> tuple[int, str, float]:
        seen.append(dict(context.fields()))
        context.note(attempt=3)
        return 0, "", 0.0

    def told(_: Any) -> None:
        seen.append(dict(context.fields()))

    try:
        for name in (TASK_NAME, "another"):
            pool.on_apply(task, (name, "a", {}), {}, told).get()
    finally:
        pool.on_stop()
    assert seen == [{"job_id": "a"}, {"job_id": "a"}, {}, {}]


@pytest.fixture
def loggers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leave logging as it was."""
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    # pytest listens to billiard's own.
    other = logging.getLogger("tests.unit.other")
    monkeypatch.setattr(setup, "multiprocessing_logger", lambda: other)
    names = ("celery.worker.strategy", "celery.app.trace")
    before = {name: list(logging.getLogger(name).filters) for name in names}
    yield
    for name, filters in before.items():
        logging.getLogger(name).filters = filters
    for signal in (signals.after_setup_logger, signals.after_setup_task_logger):
        signal.disconnect(dispatch_uid="comfyfleet-log-format")


@pytest.mark.parametrize(
    ("log_format", "reads"), [("json", json.loads), ("console", lambda text: text)]
)
@pytest.mark.usefixtures("loggers")
def test_celerys_handlers_get_the_format(log_format: Any, reads: Callable[[str], Any]) -> None:
    write_logs_as(log_format)
    logger, handler = logging.getLogger("tests.unit.handled"), logging.StreamHandler()
    logger.handlers = [handler]
    signals.after_setup_logger.send(
        sender=None, logger=logger, loglevel=20, logfile=None, format="%(message)s", colorize=False
    )
    assert "2 files" in str(reads(handler.format(record("2 files"))))


@pytest.mark.usefixtures("loggers")
def test_what_celery_says_of_a_job_is_left_to_its_story() -> None:
    write_logs_as("json")
    logger = logging.getLogger("celery.app.trace")
    job = {"data": {"name": TASK_NAME, "id": "a"}}
    assert not logger.filter(record("Task succeeded", **job))
    assert logger.filter(record("Task failed", **job, levelno=logging.ERROR))
    assert logger.filter(record("Task succeeded", data={"name": "another", "id": "a"}))
    assert logger.filter(record("anything"))


@pytest.mark.usefixtures("loggers")
def test_a_thread_that_ends_with_an_exception_says_so_in_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    write_logs_as("json")
    for target, args in ((sys.exit, ()), (int, ("x",))):
        thread = threading.Thread(target=target, args=args, name="removal")
        thread.start()
        thread.join()
    (told,) = (json.loads(JsonFormatter().format(one)) for one in caplog.records)
    assert told["level"] == "ERROR"
    assert told["message"] == "thread removal ended with an exception"
    assert told["exception"].endswith("ValueError: invalid literal for int() with base 10: 'x'")
