"""Workers and stand-ins as forks of a process that has imported what they are made of.

Started by itself a worker takes more than a second of CPU, most of it to import Celery and boto3,
and the suite starts more than a hundred. A fork reads its own environment, as nothing of ours does
when it is imported, and ends as any interpreter does. How users start a worker has its own tests.
"""

import gc
import importlib
import json
import os
import runpy
import select
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, Self

import boto3
from botocore import loaders

from sandbox.processes import ChildProcess
from settings import load

_IMPORTED = (
    *("celery.__main__", "celery.apps.worker", "celery.bin.celery", "celery.worker.consumer"),
    *(
        "celery.backends.redis",
        "celery.fixups.django",
        "kombu.transport.redis",
        "boto3.s3.transfer",
    ),
    *("tasks.app", "workers.bootstrap", "workers.broker.consumer", "workers.task"),
    *("workers.broker.gate", "workers.broker.results", "workers.broker.survivors"),
    *("workers.lifecycle.worker", "sandbox.comfyui.server"),
)

# What an interpreter reads when it starts is not read by a fork.
_OF_THE_INTERPRETER = ("PYTHON", "COVERAGE_")


class Forks:
    """Starts child processes, called as `ChildProcess` is; close it after they have ended."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="forks-")
        self._address = str(Path(self._directory.name) / "socket")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(self._address)
            listener.listen(64)
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.forking", str(listener.fileno())],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                pass_fds=(listener.fileno(),),
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._directory.cleanup()

    def __call__(
        self,
        command: Sequence[str | Path],
        log: Path,
        env: Mapping[str, str | None] | None = None,
        cwd: Path | None = None,
    ) -> ChildProcess:
        """Start a command; the arguments are those of `ChildProcess`."""
        if any(name.startswith(_OF_THE_INTERPRETER) for name in env or {}):
            return ChildProcess(command, log, env, cwd)
        return _Forked(self._address, command, log, env, cwd)


class _Forked(ChildProcess):
    def __init__(self, address: str, *arguments: Any) -> None:
        self._address = address
        super().__init__(*arguments)

    def _start(
        self, command: list[str], output: BinaryIO, env: dict[str, str], cwd: Path | None
    ) -> Any:
        request = {
            "command": command,
            "log": output.name,
            "env": env,
            "cwd": str(cwd or Path.cwd()),
        }
        return _Running(self._address, request)


class _Running:
    """A process that another one has forked, with what `Popen` has of it."""

    def __init__(self, address: str, request: Mapping[str, Any]) -> None:
        self.args = request["command"]
        self._lock = threading.Lock()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(address)
        self._socket.sendall(json.dumps(request).encode())
        self._socket.shutdown(socket.SHUT_WR)
        self._told = self._socket.makefile("r")
        self.pid = int(self._told.readline())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        with self._lock:
            if self.returncode is None:
                # Closed once the code has been told.
                watched = select.poll()
                watched.register(self._socket, select.POLLIN)
                if not watched.poll(None if timeout is None else timeout * 1000):
                    raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
                self.returncode = int(self._told.readline())
                self._told.close()
                self._socket.close()
            return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            # It may have ended, and that not be told yet.
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _serve(listener: socket.socket) -> dict[str, Any]:
    """Fork as told until standard input is closed; returns in the forks, what each is to do."""
    forked: dict[int, socket.socket] = {}
    woken, waker = socket.socketpair()
    for one in (woken, waker):
        one.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waker.fileno())
    with selectors.DefaultSelector() as selector:
        for one in (listener.fileno(), woken.fileno(), sys.stdin.fileno()):
            selector.register(one, selectors.EVENT_READ)
        while True:
            ready = [key.fd for key, _ in selector.select()]
            if sys.stdin.fileno() in ready:
                sys.exit()
            if woken.fileno() in ready:
                woken.recv(4096)
                _tell_of_ends(forked)
            if listener.fileno() in ready:
                connection, _ = listener.accept()
                request = json.loads(connection.makefile("rb").read())
                if (pid := os.fork()) == 0:
                    return dict(request)
                forked[pid] = connection
                connection.sendall(f"{pid}\n".encode())


def _tell_of_ends(forked: dict[int, socket.socket]) -> None:
    while forked:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        with forked.pop(pid) as connection, suppress(BrokenPipeError):
            connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())


def _read_s3() -> None:
    """Read what botocore has in files of S3, which is the same in each fork."""
    loaders.JSONFileLoader.load_file = staticmethod(cache(loaders.JSONFileLoader().load_file))
    nobody = {"aws_access_key_id": "nobody", "aws_secret_access_key": "none"}
    # Not boto3's own session: that is each fork's to make, from its environment.
    boto3.Session(region_name="nowhere", **nobody).client("s3").close()


def _become(request: Mapping[str, Any]) -> None:
    """Be what was asked for: a module or a program of Celery's."""
    os.setsid()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    nothing = os.open(os.devnull, os.O_RDONLY)
    log = os.open(request["log"], os.O_WRONLY | os.O_APPEND)
    for target, source in enumerate((nothing, log, log)):
        os.dup2(source, target)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    program, *arguments = request["command"]
    # With it a worker starts itself again.
    sys.orig_argv = [sys.executable, *(arguments if arguments[0] == "-m" else request["command"])]
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = [program, *arguments]
        sys.exit(importlib.import_module(f"{Path(program).name}.__main__").main())


if __name__ == "__main__":
    for module in _IMPORTED:
        importlib.import_module(module)
    _read_s3()
    if load.cache_info().misses:
        sys.exit("what forks have in common has read the environment, which each must read itself")
    # Or each would copy what its collector only looks at.
    gc.freeze()
    _become(_serve(socket.socket(fileno=int(sys.argv[1]))))
