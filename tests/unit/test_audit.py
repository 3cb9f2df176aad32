"""What `make audit` says: also when it could ask nobody."""

import importlib.util
import subprocess
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / ".ci" / "audit.py"


@pytest.fixture
def audit() -> Any:
    spec = importlib.util.spec_from_file_location("audit", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SOUND = {"name": "redis", "version": "8.1.0", "vulns": []}
SKIPPED = {"name": "ours", "skip_reason": "not found"}
VULNERABLE = {
    "name": "pillow",
    "version": "1",
    "vulns": [{"id": "PYSEC-1", "fix_versions": ["2"]}, {"id": "PYSEC-2", "fix_versions": []}],
}


@pytest.mark.parametrize(
    ("report", "code", "sentences"),
    [
        ([SOUND], 0, ["1 packages audited, 0 known vulnerabilities"]),
        ([], 0, ["NOT AUDITED: nobody could be asked"]),
        ([SKIPPED], 0, ["NOT AUDITED: nobody could be asked"]),
        ([SOUND, SKIPPED], 0, ["1 packages audited, 0 known", "NOT AUDITED: ours"]),
        (
            [SOUND, VULNERABLE],
            1,
            [
                "pillow 1: PYSEC-1 (fixed in 2)",
                "pillow 1: PYSEC-2 (fixed in no version yet)",
                "2 packages audited, 2 known vulnerabilities",
            ],
        ),
        ([VULNERABLE, SKIPPED], 1, ["1 packages audited, 2 known", "NOT AUDITED: ours"]),
    ],
)
def test_it_fails_for_what_is_known_and_says_what_is_not(
    audit: Any, report: Any, code: int, sentences: list[str]
) -> None:
    found, text = audit.verdict(report)
    assert found == code
    for sentence in sentences:
        assert sentence in text


@pytest.fixture
def pins(tmp_path: Path) -> str:
    file = tmp_path / "constraints.txt"
    file.write_text("redis==8.1.0\n")
    return str(file)


def test_a_report_that_is_none_is_no_failure_and_says_why(
    audit: Any, capsys: Any, pins: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(command: list[str], **_: Any) -> Any:
        return subprocess.CompletedProcess(command, 1, "", "WARNING: x\nERROR: no connection\n")

    monkeypatch.setattr(audit.subprocess, "run", asked)
    monkeypatch.setattr(audit.importlib.util, "find_spec", lambda _: True)
    assert audit.main(pins) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert (first, second.startswith("NOT AUDITED: nobody")) == ("ERROR: no connection", True)


def test_what_cannot_be_run_is_a_failure(
    audit: Any, capsys: Any, pins: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert audit.main(f"{pins}.none") == 2
    monkeypatch.setattr(audit.importlib.util, "find_spec", lambda _: None)
    assert audit.main(pins) == 2
    assert capsys.readouterr().out.count("NOT AUDITED") == 2


def test_ci_audits() -> None:
    assert ".ci/audit.py constraints.txt" in (SCRIPT.parent / "run").read_text()
