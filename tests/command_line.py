"""`comfyfleet` as users call it: in a process of its own."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code and what it printed."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)


class Comfyfleet:
    """The command with an environment."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        # Wide, so that tables break no line.
        self.environment = {"PATH": "/usr/bin:/bin", "COLUMNS": "400", **environment}

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """Start a command and wait for nothing."""
        return subprocess.Popen(
            [Path(sys.executable).with_name("comfyfleet"), *arguments],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self, process: "subprocess.Popen[str]") -> Ended:
        """Wait for a command that was started."""
        stdout, stderr = process.communicate(timeout=45)
        assert "Traceback" not in stderr, stderr
        return Ended(process.returncode, stdout, stderr)

    def __call__(self, *arguments: str) -> Ended:
        return self.end(self.start(*arguments))

    def refused(self, *arguments: str, code: int = 1) -> str:
        """What a command says that does not do what it was asked to: one sentence."""
        ended = self(*arguments)
        assert ended.code == code, ended
        (sentence,) = ended.stderr.splitlines()
        return sentence
