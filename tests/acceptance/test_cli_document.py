"""What docs/cli.md says is true: its commands run in their order, and its words are the code's."""

import json
import re
import shlex
from pathlib import Path
from typing import get_args

import pytest

from cli.app import COMMANDS
from cli.cancel import _SENTENCES as OUTCOMES
from cli.states import CELERY, Kind
from sandbox.stack import Stack
from tests.command_line import Comfyfleet
from workers.ledger.fleet import FORGET_SECONDS, GONE_SECONDS, TELL_SECONDS, State
from workers.ledger.scripts import MOST_INDEXED

pytestmark = pytest.mark.acceptance

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "cli.md").read_text()
SNIPPETS = re.findall(r"^```(\w+)\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
LINES = [line for kind, text in SNIPPETS if kind == "console" for line in text.splitlines()]


@pytest.mark.usefixtures("worker")
def test_the_tour_can_be_followed(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    comfyfleet = Comfyfleet(stack.environment())
    answers = {}
    for line in LINES:
        command, _, note = line.removeprefix("$ comfyfleet ").partition("#")
        expected = int(note.removeprefix(" exits with ") or 0)
        ended = comfyfleet(*shlex.split(command))
        assert ended.code == expected, (line, ended)
        assert ended.stdout or ended.stderr, line
        answers[command.strip()] = ended.stdout
    (shown,) = [json.loads(text) for kind, text in SNIPPETS if kind == "json"]
    told = json.loads(answers["status hello --json"])
    assert told == {**shown, "instance": stack.comfyui_url}


def test_it_leaves_no_command_on_jobs_and_the_fleet_out() -> None:
    named = {line.removeprefix("$ comfyfleet ").split()[0] for line in LINES}
    panels = {one.panel for one in COMMANDS.values() if one.name in named}
    assert len(panels) == 2
    assert named | {"batch"} == {one.name for one in COMMANDS.values() if one.panel in panels}


def test_its_words_are_those_of_the_code() -> None:
    states = re.findall(r"^\| `(\w+)` \|", DOCUMENT, re.MULTILINE)
    assert set(states) == {*get_args(State), "gone"}
    for word in (*CELERY.values(), *OUTCOMES):
        assert f"`{word}`" in DOCUMENT, word
    for kind in Kind:
        assert kind.value in DOCUMENT
    assert (TELL_SECONDS, GONE_SECONDS, FORGET_SECONDS) == (3, 12, 600)
    assert f"{MOST_INDEXED:,}" in DOCUMENT


def test_its_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?://)([^)#]+)\)", DOCUMENT):
        assert (ROOT / "docs" / target).exists(), target
