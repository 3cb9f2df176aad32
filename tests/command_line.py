"""`comfyfleet` as users call it: in a process of its own, forked from one that has imported it."""

import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from cli.app import COMMANDS

_SECONDS = 45.0

# Importing takes longer than most commands.
_SERVER = get_context("forkserver")
_SERVER.set_forkserver_preload(
    ["cli.main", *{one.place.partition(":")[0] for one in COMMANDS.values()}]
)


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code and what it printed."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)


class Started:
    """A command that runs."""

    def __init__(self, arguments: tuple[str, ...], environment: Mapping[str, str]) -> None:
        with tempfile.NamedTemporaryFile(delete=False) as stdout:
            self._stdout = Path(stdout.name)
        with tempfile.NamedTemporaryFile(delete=False) as stderr:
            self._stderr = Path(stderr.name)
        self._process = _SERVER.Process(
            target=_run, args=(arguments, dict(environment), self._stdout, self._stderr)
        )
        self._process.start()

    def signal(self, number: int) -> None:
        """Send it a signal."""
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process.pid is not None
        return self._process.pid

    def await_stderr(self, text: str) -> None:
        """Wait until it has said this."""
        deadline = time.monotonic() + _SECONDS
        while text not in (said := self._stderr.read_text()):
            assert time.monotonic() < deadline, said
            assert self._process.is_alive(), said
            time.sleep(0.05)

    def end(self) -> Ended:
        """Wait for it."""
        self._process.join(_SECONDS)
        code = self._process.exitcode
        if code is None:
            self._process.kill()
        stdout, stderr = self._stdout.read_text(), self._stderr.read_text()
        self._stdout.unlink()
        self._stderr.unlink()
        assert code is not None, f"not within {_SECONDS} s: {stderr}"
        assert "Traceback" not in stderr, stderr
        return Ended(code, stdout, stderr)


class Comfyfleet:
    """The command with an environment."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        # Wide, so that tables break no line.
        self.environment = {"PATH": "/usr/bin:/bin", "COLUMNS": "400", **environment}

    def start(self, *arguments: str) -> Started:
        """Start a command and wait for nothing."""
        return Started(arguments, self.environment)

    def end(self, started: Started) -> Ended:
        """Wait for a command that was started."""
        return started.end()

    def __call__(self, *arguments: str) -> Ended:
        return self.end(self.start(*arguments))

    def refused(self, *arguments: str, code: int = 1) -> str:
        """What a command says that does not do what it was asked to: one sentence."""
        ended = self(*arguments)
        assert ended.code == code, ended
        (sentence,) = ended.stderr.splitlines()
        return sentence


def _run(
    arguments: tuple[str, ...], environment: Mapping[str, str], stdout: Path, stderr: Path
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    for number, path in ((1, stdout), (2, stderr)):
        with path.open("ab") as file:
            os.dup2(file.fileno(), number)
    sys.argv = ["comfyfleet", *arguments]

    from cli.main import main

    sys.exit(main())
