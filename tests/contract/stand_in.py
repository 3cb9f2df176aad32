"""A stand-in ComfyUI in a process of its own, as users start it."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).parents[2]


class StandIn:
    """The process; `url` is where it listens."""

    def __init__(self, directory: Path, version: str) -> None:
        self.directory = directory
        command = [sys.executable, "-m", "sandbox.comfyui", "--port", "0"]
        command += ["--directory", str(directory), "--comfyui-version", version]
        self._errors = (directory / "errors.log").open("w")
        self._process = subprocess.Popen(
            [*command, "--step-seconds", "0.01"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        assert self._process.stdout
        self.first_line = self._process.stdout.readline()
        found = re.fullmatch(r"ComfyUI stand-in listening on (http://\S+)\n", self.first_line)
        assert found, self.first_line + (directory / "errors.log").read_text()
        self.url = found[1]

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """Send a signal; return the exit code and what was printed after the first line."""
        self._process.send_signal(number)
        try:
            printed, _ = self._process.communicate(timeout=20)
        finally:
            self._process.kill()
            self._errors.close()
        return self._process.returncode, printed

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self.stop()
