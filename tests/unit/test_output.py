"""What commands print."""

import pytest
from rich.table import Table
from rich.text import Text

from cli.jobs import Row, table_of
from cli.output import id_column, print_table, short
from cli.states import Kind

UUID = "4e393cef-d0d2-4638-b923-ac5d3be104dc"


@pytest.mark.parametrize("more", [[], ["x" * 200]], ids=["as usual", "beside a long one"])
def test_ids_can_be_copied_and_nothing_is_cut_off(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    ids = [UUID, *more]
    table = Table(id_column("prompt", ids), "ended", "outcome", "files")
    for one in ids:
        table.add_row(one, "2026-11-26 03:11:26 UTC", "PromptInterruptedError", "a_00001_.png")
    print_table(table)
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    assert printed.count("x") == 200 * len(more)
    assert UUID in printed


def test_a_narrow_terminal_has_the_words_rather_than_the_borders(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job = Row(UUID, Kind.FAILED, 1.0, instance="http://gpu-1:8188", attempts=3, error="no model")
    monkeypatch.setenv("COLUMNS", "80")
    print_table(table_of([job], 60.0))
    narrow = capsys.readouterr().out
    assert max(map(len, narrow.splitlines())) <= 80
    assert all(word in narrow for word in (UUID, "http", "model"))
    assert "│" not in narrow
    monkeypatch.setenv("COLUMNS", "160")
    print_table(table_of([job], 60.0))
    assert "│" in capsys.readouterr().out


@pytest.mark.parametrize("width", [12, 40, 60])
def test_a_table_that_is_too_wide_is_shown_as_entries(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    table = Table("worker", "server", *short("slots"), "jobs", "last error", "version")
    jobs = Text("a executing\nb [queued]")
    table.add_row("one", "http://10.0.0.1:8188", "2/12", jobs, "it was " + "z" * 100, "0.1.0")
    table.add_row("two", "", "0/12", "", "", "")
    print_table(table)
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= width
    assert printed.count("z") == 100
    first, _, second = " ".join(printed.split()).partition(" worker two ")
    if width >= 40:
        assert first.startswith("worker one server http://10.0.0.1:8188 · slots 2/12")
        assert "jobs a executing, b [queued] · last error it was" in first
    assert second == "slots 0/12"


def test_a_table_that_fits_is_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    table = Table("at", "what")
    table.add_row("now", "a word " * 20)
    print_table(table)
    lines = capsys.readouterr().out.splitlines()
    assert {len(line) for line in lines} == {60}
