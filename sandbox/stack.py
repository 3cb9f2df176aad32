"""The whole stack on free ports of this machine, gone without a trace when it is closed."""

import re
import shutil
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import requests

from sandbox.processes import ChildProcess
from sandbox.seaweedfs import SeaweedFS
from sandbox.valkey import Valkey

_LISTENING = re.compile(r"listening on (\S+:\d+)$", re.MULTILINE)


# No proxy stands between the parts of the stack.
LOOPBACK = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}


class StandIn:
    """A stand-in ComfyUI in a process of its own."""

    def __init__(self, directory: Path, version: str = "0.8.0", step_seconds: float = 0.05) -> None:
        """Start it and wait until it answers.

        Args:
            directory: for its inputs, outputs and log.
            version: the ComfyUI version whose behaviour it shows.
            step_seconds: how long each sampling step takes.
        """
        self.directory = directory / "data"
        self.process = ChildProcess(
            [
                *(sys.executable, "-m", "sandbox.comfyui", "--port", "0"),
                *("--directory", self.directory, "--comfyui-version", version),
                *("--step-seconds", str(step_seconds)),
            ],
            directory / "comfyui.log",
        )
        self.process.wait_until(lambda: _LISTENING.search(self.process.tail()) is not None)
        self.url = _LISTENING.findall(self.process.tail())[0]

    def stop(self) -> None:
        """Stop it; it forgets its history."""
        self.process.stop()

    def executions(self) -> dict[str, int]:
        """How often it began to execute each prompt."""
        answer = requests.get(f"{self.url}/sandbox/executions", timeout=5)
        return dict(answer.json())


class Stack:
    """Broker, store and as many ComfyUI servers as wanted, with the environment for workers."""

    def __init__(self, comfyui_url: str | None = None) -> None:
        """Name what is to be started; entering the context starts it.

        Args:
            comfyui_url: of a server to use instead of a stand-in.
        """
        self._comfyui_url = comfyui_url

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            self.directory = Path(tempfile.mkdtemp(prefix="comfyfleet-"))
            undo.callback(shutil.rmtree, self.directory, ignore_errors=True)
            self.valkey = Valkey(self.folder("valkey"))
            undo.callback(self.valkey.stop)
            self.seaweedfs = SeaweedFS(self.folder("seaweedfs"))
            undo.callback(self.seaweedfs.stop)
            self._undo = undo
            if self._comfyui_url is None:
                self.comfyui = self.stand_in()
            self.comfyui_url = self._comfyui_url or self.comfyui.url
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._undo.close()

    def folder(self, name: str) -> Path:
        """A new folder that goes away with the stack."""
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.directory))

    def stand_in(self, version: str = "0.8.0", step_seconds: float = 0.05) -> StandIn:
        """Start one more stand-in ComfyUI."""
        stand_in = StandIn(self.folder("comfyui"), version, step_seconds)
        self._undo.callback(stand_in.stop)
        return stand_in

    def environment(self, comfyui_url: str | None = None) -> dict[str, str]:
        """The variables with which workers and producers use this stack."""
        return {
            "CELERY_BROKER_URL": self.valkey.url,
            "CELERY_RESULT_BACKEND": self.valkey.url,
            "COMFYUI_URL": comfyui_url or self.comfyui_url,
            "S3_BUCKET": self.seaweedfs.bucket,
            "S3_ENDPOINT_URL": self.seaweedfs.url,
            **self.seaweedfs.credentials,
        }

    def worker(
        self, comfyui_url: str | None = None, settings: Mapping[str, str] | None = None
    ) -> ChildProcess:
        """Start a worker as users do, and wait until it takes jobs.

        Args:
            comfyui_url: the server that it drives; default: the stack's first one.
            settings: variables beside those of the stack.
        """
        process = ChildProcess(
            [Path(sys.executable).with_name("celery"), "-A", "workers", "worker"],
            self.folder("worker") / "worker.log",
            env={
                **self.environment(comfyui_url),
                # The user's own must reach neither the store nor the wait for a line of the log.
                **dict.fromkeys(("AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ENDPOINT_URL_S3")),
                **LOOPBACK,
                "LOG_LEVEL": "INFO",
                **(settings or {}),
            },
        )
        self._undo.callback(process.stop)
        process.wait_until(lambda: " ready." in process.tail())
        return process
