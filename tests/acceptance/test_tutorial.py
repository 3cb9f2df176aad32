"""The tutorial, followed word by word in three terminals."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.stack import Stack
from tests.pages import ROOT, snippets

pytestmark = pytest.mark.acceptance

COMMANDS = [
    (snippet.title, line.removeprefix("$ "))
    for snippet in snippets("docs/tutorial.md")
    for line in snippet.text.splitlines()
]

# Commands that go on until Ctrl-C, and what they say when the reader goes on.
SERVING = {"comfyfleet sandbox": "until Ctrl-C", "celery": " ready."}

# Installing and the demo have tests of their own.
ELSEWHERE = ("make demo", "source .venv/")


class Terminal:
    """A shell that does one command after the other."""

    def __init__(self, folder: Path, name: str) -> None:
        self._log = folder / f"{name}.log"
        environment = {
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "PYTHONPATH": str(ROOT),
            "TMPDIR": str(folder),
            "HOME": str(folder),
        }
        with self._log.open("wb") as log:
            self._shell = subprocess.Popen(
                ["bash", "--norc"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=folder / "clone",
                env=environment,
                start_new_session=True,
            )

    @property
    def shown(self) -> str:
        return self._log.read_text()

    def do(self, command: str) -> str:
        """What a command shows; of one that goes on, until it is ready."""
        before = len(self.shown)
        ready = next((said for name, said in SERVING.items() if command.startswith(name)), None)
        said = ready or "\x04done 0\n"
        assert self._shell.stdin is not None
        self._shell.stdin.write(f"{command}\nprintf '\\x04done %s\\n' $?\n".encode())
        self._shell.stdin.flush()
        deadline = time.monotonic() + 60
        while said not in (shown := self.shown[before:]):
            assert time.monotonic() < deadline, shown
            assert "\x04done" not in shown, f"{command}: {shown}"
            time.sleep(0.05)
        return shown

    def close(self) -> None:
        """Ctrl-C, and the window's end."""
        for number in (signal.SIGINT, signal.SIGTERM):
            for child in _children(self._shell.pid):
                os.kill(child, number)
            if self._ended_within(15):
                break
        assert self._shell.stdin is not None
        self._shell.stdin.close()
        self._shell.wait(15)

    def _ended_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while _children(self._shell.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        return not _children(self._shell.pid)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.fixture
def terminals(tmp_path: Path) -> Iterator[dict[str, Terminal]]:
    clone = tmp_path / "clone"
    clone.mkdir()
    (clone / "examples").symlink_to(ROOT / "examples")
    opened = {name: Terminal(tmp_path, name) for name in {name for name, _ in COMMANDS}}
    try:
        yield opened
    finally:
        for name in sorted(opened, reverse=True):
            opened[name].close()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="children are found in /proc")
def test_the_tutorial(stack: Stack, terminals: dict[str, Terminal], tmp_path: Path) -> None:
    shown = ""
    for terminal, command in COMMANDS:
        if not command.startswith(ELSEWHERE):
            typed = command.replace("http://127.0.0.1:8188", stack.comfyui_url)
            shown += terminals[terminal].do(typed)
    renders = sorted(path.name for path in (tmp_path / "clone" / "renders").rglob("*.png"))
    assert len(renders) == 2
    assert len(re.findall(r"s3://comfyui/\S+\.png", shown)) >= 1
    assert "Traceback" not in shown
