"""What the pages on deploying, Redis and storage tell to set and to run."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from kombu import Connection

from settings import load
from tests.unit.test_deploy_files import KNOWN

ROOT = Path(__file__).parents[2]
PAGES = {
    name: (ROOT / "docs" / name).read_text() for name in ("deploy.md", "redis.md", "storage.md")
}
# Of the compose file alone, and those that boto3 reads.
OTHERS = {"WORKER_STOP_GRACE", "AWS_CA_BUNDLE", "EXTRAS", "SECRET", "TOKEN", "PASSWORD", "ACCOUNT"}


def snippets(kind: str, page: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGES[page], re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    "snippet", [one for page in ("redis.md", "storage.md") for one in snippets("bash", page)]
)
def test_variables_that_are_shown_are_taken(
    snippet: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    authority = tmp_path / "ca.pem"
    authority.touch()
    for line in snippet.splitlines():
        name, _, value = line.partition("=")
        assert name in KNOWN or name.startswith("AWS_"), name
        monkeypatch.setenv(name, value.replace("/etc/comfyfleet/ca.pem", str(authority)))
    assert "PASSWORD" not in str(load().masked().values())


def test_the_bare_producer_for_sentinels_is_one() -> None:
    (snippet,) = snippets("python", "redis.md")
    told: dict[str, Any] = {}
    exec(compile(snippet, "redis.md", "exec"), told)
    app = told["app"]
    with app.connection_for_write() as connection:
        assert isinstance(connection, Connection)
        assert connection.alt == app.conf.broker_url.split(";")
        assert connection.transport_options["master_name"] == "comfyfleet"
    pool = app.backend.client.connection_pool
    assert pool.service_name == "comfyfleet"
    assert pool.connection_kwargs["socket_timeout"] == 5
    assert len(pool.sentinel_manager.sentinels) == 2


@pytest.mark.parametrize("page", PAGES)
def test_what_is_named_is_there(page: str) -> None:
    text = PAGES[page]
    named = re.findall(r"(?<![\w/-])((?:deploy|tests|docs)/[\w./@-]+\w)", text)
    for path in named:
        assert (ROOT / path).exists(), path
    for target in re.findall(r"\]\((?!https?://)([^)#]+)(?:#[^)]*)?\)", text):
        assert (ROOT / "docs" / target).exists(), target
    for variable in re.findall(r"`([A-Z][A-Z0-9]*_[A-Z0-9_]+)(?:=[^`]*)?`", text):
        assert variable in KNOWN | OTHERS or variable.startswith("AWS_"), variable


def test_kustomizations_that_are_told_of_are_all() -> None:
    told = re.findall(r"`((?:components|overlays)/[\w-]+)`", PAGES["deploy.md"])
    there = {
        str(one.parent.relative_to(ROOT / "deploy/kubernetes"))
        for one in (ROOT / "deploy/kubernetes").glob("*/*/kustomization.yaml")
    }
    assert set(told) == there


def test_console_snippets_are_commands() -> None:
    commands = [
        line.removeprefix("$ ")
        for one in snippets("console", "deploy.md")
        for line in one.splitlines()
    ]
    programs = set()
    for command in commands:
        words = [word for word in shlex.split(command) if not re.match(r"[A-Z_]+=", word)]
        programs.add(Path(words[0]).name)
        for word in words[1:]:
            if word.startswith("deploy/"):
                assert (ROOT / word).exists(), word
    assert programs == {"docker", "python3", "pip", "install", "echo", "systemctl", "kubectl"}
