"""The whole stack on free ports of this machine, gone without a trace when it is closed."""

import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from sandbox.comfyui.model_files import DEFAULT_MODELS
from sandbox.executions import FILE_NAME, Execution, ExecutionLog
from sandbox.processes import ChildProcess, kept_port
from sandbox.seaweedfs import SeaweedFS
from sandbox.valkey import Valkey

_LISTENING = re.compile(r"listening on http://127.0.0.1:(\d+)$", re.MULTILINE)

Start = Callable[..., ChildProcess]
"""Starts a child process; the arguments are those of `ChildProcess`."""

# No proxy stands between the parts of the stack.
LOOPBACK = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}


class StandIn:
    """A stand-in ComfyUI in a process of its own."""

    def __init__(
        self,
        directory: Path,
        version: str = "0.8.0",
        step_seconds: float = 0.05,
        *,
        models: Iterable[str] = DEFAULT_MODELS,
        model_seconds: float = 0.0,
        without_nodes: Iterable[str] = (),
        start: Start = ChildProcess,
    ) -> None:
        """Start it and wait until it answers.

        Args:
            directory: for its models, inputs, outputs and log.
            version: the ComfyUI version whose behaviour it shows.
            step_seconds: how long each sampling step takes.
            models: the files that it has, as `FOLDER/NAME`.
            model_seconds: how long loading a model takes that is not loaded.
            without_nodes: the node classes that it lacks.
            start: what starts its process.
        """
        self._start = start
        self.directory = directory / "data"
        self.port = kept_port(self)
        self._log = directory / "comfyui.log"
        self._options = (
            *("--comfyui-version", version, "--step-seconds", str(step_seconds)),
            *("--model-seconds", str(model_seconds)),
            *("--models", *models, "--without-nodes", *without_nodes),
        )
        self._execution_log = ExecutionLog(self.directory / FILE_NAME)
        self._log.touch()
        self.start()

    @property
    def url(self) -> str:
        """Its base URL, the same after each start."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it again on its port and its folders, after a `stop`, a `kill` or its own end."""
        before = len(self._ports())
        self.process = self._start(
            [
                *(sys.executable, "-m", "sandbox.comfyui", "--port", str(self.port)),
                *("--directory", self.directory),
                *self._options,
            ],
            self._log,
        )
        # One line a start: the earlier ones are still in the log.
        self.process.wait_until(lambda: len(self._ports()) > before)

    def stop(self) -> None:
        """Stop it; it forgets its history."""
        self.process.stop()

    def kill(self) -> None:
        """End it at once; it forgets its history and what it was executing."""
        self.process.kill()

    def add_model(self, model: str) -> None:
        """Give it one more model file, `FOLDER/NAME`; it has it from its next answer on."""
        path = self.directory / "models" / model
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    def loads(self) -> Counter[str]:
        """How often it loaded, or began to load, each model, all its starts together."""
        return Counter(model for one in self.execution_log() for model in one.loads)

    def executions(self) -> dict[str, int]:
        """How often it began to execute each prompt, all its starts together, alive or dead."""
        return dict(self._execution_log.counts())

    def execution_log(self) -> list[Execution]:
        """When it executed what, all its starts together, alive or dead."""
        return self._execution_log.read()

    def _ports(self) -> list[int]:
        return [int(port) for port in _LISTENING.findall(self._log.read_text(errors="replace"))]


class Stack:
    """Broker, store and as many ComfyUI servers as wanted, with the environment for workers."""

    def __init__(self, comfyui_url: str | None = None, start: Start = ChildProcess) -> None:
        """Name what is to be started; entering the context starts it.

        Args:
            comfyui_url: of a server to use instead of a stand-in.
            start: what starts the processes of workers and stand-ins.
        """
        self._start = start
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

    def stand_in(
        self,
        version: str = "0.8.0",
        step_seconds: float = 0.05,
        *,
        models: Iterable[str] = DEFAULT_MODELS,
        model_seconds: float = 0.0,
        without_nodes: Iterable[str] = (),
    ) -> StandIn:
        """Start one more stand-in ComfyUI; the arguments are those of `StandIn`."""
        stand_in = StandIn(
            self.folder("comfyui"),
            version,
            step_seconds,
            models=models,
            model_seconds=model_seconds,
            without_nodes=without_nodes,
            start=self._start,
        )
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
        process = self.launch_worker(comfyui_url, settings)
        # Of the whole log: jobs that waited for it may have told much since.
        process.wait_until(lambda: " ready." in process.log.read_text(errors="replace"))
        return process

    def launch_worker(
        self, comfyui_url: str | None = None, settings: Mapping[str, str] | None = None
    ) -> ChildProcess:
        """Start a worker as `worker` does, and wait for nothing."""
        process = self._start(
            [Path(sys.executable).with_name("celery"), "-A", "workers", "worker"],
            self.folder("worker") / "worker.log",
            env={
                **self.environment(comfyui_url),
                # The user's own must reach neither the store nor the wait for a line of the log.
                **dict.fromkeys(("AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ENDPOINT_URL_S3")),
                # Nor other servers the one that is meant.
                "COMFYUI_URLS": None,
                **LOOPBACK,
                "LOG_LEVEL": "INFO",
                **(settings or {}),
            },
        )
        self._undo.callback(process.stop)
        return process
