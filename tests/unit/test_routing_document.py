"""What docs/routing.md says is what the code does."""

import json
import re
from pathlib import Path

import pytest

from cli.check import Finding, exit_code, show_findings
from settings.model import Settings
from workers.broker import scripts
from workers.ledger.servers import TOLD_SECONDS, Server
from workers.routing import survey
from workers.routing.lacks import Lack

PAGE = " ".join((Path(__file__).parents[2] / "docs" / "routing.md").read_text().split())
SERVER = Server(place="p", instance="i", worker="w", version="", digest="d", takes_jobs=True)


@pytest.mark.parametrize(
    ("sentence", "seconds"),
    [
        ("Every three seconds each worker says that its server is still there", 3),
        ("nothing was heard for {} s does not count", TOLD_SECONDS),
        ("After {} s its server does not count", TOLD_SECONDS),
        ("every {} s; if they have changed, everything", survey._MODELS_SECONDS),
        ("a worker waits five seconds before it fails a job", 5),
        ("waits `WARM_WAIT_SECONDS` ({}) at most", Settings().warm_wait_seconds),
    ],
)
def test_the_times_are_those_of_the_code(sentence: str, seconds: float) -> None:
    assert sentence.format(f"{seconds:g}") in PAGE


def test_times_in_words_are_those_of_the_code() -> None:
    assert (survey._TELL_SECONDS, survey._SETTLING_SECONDS) == (3, 5)
    assert survey._RETURNING_SECONDS == 60
    assert "it leaves alone for a minute" in PAGE
    assert survey._ALL_SECONDS == 600
    assert "every ten minutes" in PAGE
    assert survey._FRESH_SECONDS == 5
    assert "in the last 5 s" in PAGE
    assert survey._UNKNOWN_SECONDS == 300
    assert "wait for 300 s to see it" in " ".join(PAGE.split())
    assert scripts.PATIENT == 10
    assert "any server after ten times as long" in PAGE


def test_the_fields_of_check_are_those_that_it_prints(capsys: pytest.CaptureFixture[str]) -> None:
    show_findings([Finding(SERVER, (Lack("4", "x"),))], as_json=True)
    (printed,) = json.loads(capsys.readouterr().out)
    rows = PAGE.partition("| field | meaning |")[2].partition("##")[0]
    documented = {
        name
        for names in re.findall(r"\| ((?:`\w+`(?:, )?)+) \|", rows)
        for name in re.findall(r"\w+", names)
    }
    assert documented == printed.keys()
    assert all(f"`{name}`" in rows for name in printed["lacks"][0])


@pytest.mark.parametrize(
    ("code", "findings"),
    [(0, [Finding(SERVER, ())]), (1, [Finding(SERVER, None)]), (3, [])],
)
def test_the_exit_codes_are_those_of_check(code: int, findings: list[Finding]) -> None:
    assert exit_code(findings) == code
    assert re.search(rf"\| {code} \| \w", PAGE)
