"""What is printed of jobs that have ended."""

from typing import Any

import pytest

from cli.outcomes import Outcome, print_outcomes
from tasks import JobResult
from tasks.errors import NodeFailedError


def result(**fields: Any) -> JobResult:
    told = {"job_id": "j", "prompt_id": "p", "instance": "http://gpu", "worker": "w"}
    rest: dict[str, Any] = {"attempts": [], "metadata": {}, "outputs": [], "values": {}}
    manifest = {"bucket": "b", "key": "j/manifest.json"}
    timings = dict.fromkeys(("queued", "staged", "executed", "uploaded", "total"), 1.0)
    return JobResult.model_validate(
        {**told, **rest, "manifest": manifest, "timings": timings, **fields}
    )


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def test_what_a_job_has_shown_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    made = result(values={"4": {"text": ["a [red]cat\x1b"]}}, seeds={"3.seed": 42})
    print_outcomes([Outcome("j", None, made)])
    printed = capsys.readouterr().out
    assert '"a [red]cat\\u001b"' in printed
    assert "42" in printed
    assert "row" not in printed


def test_rows_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [result(values={"4": {"text": [word]}}) for word in ("one", "two")]
    outcomes = [Outcome(f"j{n}", n, one) for n, one in enumerate(rows, 1)]
    print_outcomes([*outcomes, Outcome("j3", 3, NodeFailedError("no"))])
    printed = capsys.readouterr().out
    assert [line.split()[1::2] for line in printed.splitlines() if "text" in line] == [
        ["1", "4", "text", '["one"]'],
        ["2", "4", "text", '["two"]'],
    ]


def test_of_what_is_not_there_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    print_outcomes([Outcome("j", None, NodeFailedError("no"))])
    assert capsys.readouterr().out == ""
