"""What commands print."""

import pytest
from rich.table import Table

from cli.output import id_column, print_table

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
    assert (UUID in printed) is not bool(more)
