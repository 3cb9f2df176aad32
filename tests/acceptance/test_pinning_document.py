"""What the page on pinning says is what workers do."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from typer.testing import CliRunner

from cli.app import app
from settings import Settings
from workers.ledger.ledger import LEASE_SECONDS, RENEW_SECONDS
from workers.ledger.pins import Holder, Pin
from workers.lifecycle import pinning
from workers.lifecycle.moving import DOWN_SECONDS
from workers.lifecycle.pinned import _MARGIN
from workers.lifecycle.pinning import Candidate, _waiting

pytestmark = pytest.mark.acceptance

PAGE = (Path(__file__).parents[2] / "docs" / "pinning.md").read_text()
SNIPPETS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
VARIABLES = {field.alias for field in Settings.model_fields.values()}


def snippets(kind: str) -> list[str]:
    return [text for one, text in SNIPPETS if one == kind]


def test_every_snippet_is_of_a_kind_that_is_checked() -> None:
    assert {kind for kind, _ in SNIPPETS} == {"text", "sh", "yaml"}


def test_the_line_of_a_spare_is_the_one_that_is_shown() -> None:
    (shown,) = snippets("text")
    holder = Holder(worker="gpu-1-8188@render-7", host="render-7")
    pin = Pin(token=1, seconds=9.0, let_go=False, since=1_795_670_410.0, holder=holder)
    held = [Candidate("http://gpu-1:8188", pin, is_free=False)]
    # With one server it also says how to share it.
    assert _waiting(held).startswith(shown.strip())


def test_the_settings_of_commands_are_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    for snippet in snippets("sh"):
        (given,) = re.findall(r"^export (\w+)=(.*)$", snippet, re.MULTILINE)
        monkeypatch.setenv(*given)
        assert len(Settings().comfyui_servers) > 1


def test_each_worker_command_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    import cli.worker

    started: list[object] = []
    crew = SimpleNamespace(run=lambda: 0)
    monkeypatch.setattr(cli.worker, "Crew", lambda *given: started.append(given) or crew)
    monkeypatch.setattr(cli.worker.os, "execv", lambda *given: started.append(given))
    monkeypatch.setenv("S3_BUCKET", "renders")
    commands = set(re.findall(r"comfyfleet (worker[ \w-]*)", "".join(snippets("sh"))))
    for command in sorted(commands | {"worker"}):
        assert CliRunner().invoke(app, command.split()).exit_code == 0
    alone, per_gpu = started
    assert alone[1][1:] == ("-m", "celery", "-A", "workers", "worker")
    assert per_gpu[1] == ("http://127.0.0.1:8188",)


def test_the_deployment_is_one_whose_variables_exist() -> None:
    (deployment,) = map(yaml.safe_load, snippets("yaml"))
    spec = deployment["spec"]
    labels = spec["template"]["metadata"]["labels"]
    assert spec["selector"]["matchLabels"] == labels
    (container,) = spec["template"]["spec"]["containers"]
    given = {one["name"]: one["value"] for one in container["env"]}
    assert set(given) <= VARIABLES
    servers = Settings.model_validate(given).comfyui_servers
    # One is a spare.
    assert spec["replicas"] == len(servers) + 1


def test_the_times_are_those_of_the_code() -> None:
    assert (LEASE_SECONDS, RENEW_SECONDS, pinning.LOOK_SECONDS) == (12.0, 3.0, 2.0)
    assert (LEASE_SECONDS - _MARGIN, DOWN_SECONDS, pinning._TELL_SECONDS) == (10.0, 60.0, 300.0)
