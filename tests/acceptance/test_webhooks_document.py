"""What docs/webhooks.md says is true: its programs run, its numbers and names are in force."""

import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cli.webhooks import webhooks
from sandbox.processes import ChildProcess, free_ports
from sandbox.stack import Stack
from settings import Settings
from settings.secrets import of_webhooks, separated
from tasks.errors import NodeFailedError
from tasks.request import JobRequest, WebhookOptions
from workers.ledger.outbox_scripts import _MOST_BYTES, _MOST_HOST_BYTES
from workers.webhooks.notices import MOST_BYTES, Notices

pytestmark = pytest.mark.acceptance

DOCUMENT = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text()
SNIPPETS = re.findall(r"^```(\w+)\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)


def snippets(kind: str) -> list[str]:
    return [snippet for of_kind, snippet in SNIPPETS if of_kind == kind]


def listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.usefixtures("worker")
def test_the_receiver_hears_of_the_job(stack: Stack) -> None:
    enqueue, receive = snippets("python")
    (port,) = free_ports(1)
    receiver = ChildProcess(
        [sys.executable, "-c", receive.replace("8080", str(port))],
        stack.folder("receiver") / "receiver.log",
    )
    receiver.wait_until(lambda: listens(port))
    here = f"http://127.0.0.1:{port}/"
    done = subprocess.run(
        [sys.executable, "-c", enqueue.replace("https://hooks.example.com/renders", here)],
        env={"PATH": "/usr/bin:/bin", **stack.environment()},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    try:
        assert done.returncode == 0, done.stderr
        heard = f"job.succeeded {done.stdout.strip()}"
        receiver.wait_until(lambda: heard in receiver.tail())
    finally:
        receiver.stop()


def test_the_command_makes_a_secret() -> None:
    (command,) = snippets("console")
    program = command.partition("-c '")[2].rstrip().removesuffix("'")
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True
    )
    assert len(of_webhooks(separated(done.stdout))) == 1


def test_what_is_sent_has_the_fields_that_are_shown() -> None:
    (shown,) = (json.loads(snippet) for snippet in snippets("json"))
    request = JobRequest(
        workflow={}, metadata={"order": "7"}, webhook=WebhookOptions(url="https://a")
    )
    notice = Notices(signed=True).of_end("j", request, "failed", error=NodeFailedError("x"))
    assert notice is not None
    sent = json.loads(notice.body)
    assert sent.keys() == shown.keys()
    assert sent["data"].keys() == shown["data"].keys()
    assert sent["data"]["error"].keys() == shown["data"]["error"].keys()


def test_commands_settings_and_limits_are_called_as_they_are() -> None:
    documented = set(re.findall(r"^\| `comfyfleet webhooks (\w+)", DOCUMENT, re.MULTILINE))
    commands = {
        command.name or command.callback.__name__ for command in webhooks.registered_commands
    }
    assert documented == commands
    known = {field.alias for field in Settings.model_fields.values()}
    assert set(re.findall(r"`(WEBHOOK_[A-Z_]+)`", DOCUMENT)) <= known
    assert f"{MOST_BYTES:,} bytes" in DOCUMENT
    assert f"{_MOST_HOST_BYTES >> 20} MiB may wait for one host" in DOCUMENT
    assert f"{_MOST_BYTES >> 20} MiB for all" in DOCUMENT
