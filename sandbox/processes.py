"""Child processes that never outlive their parent's interest in them."""

import os
import platform
import secrets
import signal
import socket
import subprocess
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

_INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# Below those that systems give to whoever connects: one of these may be taken by the time that it
# is listened on.
_PORTS = range(10_000, 32_768)


class StartupError(Exception):
    """A part of the stack did not become ready; the message ends with what it printed last."""


class ChildProcess:
    """A process with its output in a file, in a session of its own.

    The session keeps the terminal's Ctrl-C from it: whoever started it stops it, in order.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        log: Path,
        env: Mapping[str, str | None] | None = None,
        cwd: Path | None = None,
    ) -> None:
        """Start the command.

        Args:
            command: program and arguments.
            log: file that receives what it prints.
            env: variables beside those of this process; None takes one away.
            cwd: folder to run in.
        """
        self.name = Path(command[0]).name
        self.log = log
        # An interrupt while it is being made would leave it behind.
        with log.open("ab") as output, _uninterrupted(self.kill):
            self._process = self._start(
                [str(part) for part in command],
                output,
                {k: v for k, v in {**os.environ, **(env or {})}.items() if v is not None},
                cwd,
            )

    def _start(
        self, command: list[str], output: BinaryIO, env: dict[str, str], cwd: Path | None
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=env,
            cwd=cwd,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, or None while it runs."""
        return self._process.poll()

    def wait_until(self, ready: Callable[[], bool], seconds: float = 30.0) -> None:
        """Wait until `ready` says so; stop the process if it does not, or on an interrupt.

        Raises:
            StartupError: the process ended first, or the time is over.
        """
        deadline = time.monotonic() + seconds
        try:
            while True:
                # Read before it is asked: what it did before it ended counts.
                code = self.returncode
                if ready():
                    return
                if code is not None:
                    raise StartupError(f"{self.name} ended with {code}:\n{self.tail()}")
                if time.monotonic() > deadline:
                    raise StartupError(
                        f"{self.name} is not ready after {seconds} s:\n{self.tail()}"
                    )
                time.sleep(0.02)
        except BaseException:
            self.stop()
            raise

    def tail(self, lines: int = 20) -> str:
        """The last lines that it printed."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def wait(self, seconds: float) -> int:
        """Wait for it to end by itself and return its exit code."""
        return self._process.wait(seconds)

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def pause(self) -> None:
        """Hang it: it does nothing and keeps its connections, until `resume` or `stop`."""
        self.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused one go on; nothing happens to any other."""
        self.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it at once, as a power cut would, and wait until it is gone."""
        self._process.kill()
        self._process.wait()

    def stop(self, patience: float = 15.0) -> None:
        """Ask it to end, and make it end when the patience, in seconds, is over."""
        if self.returncode is None:
            self._process.terminate()
            # A paused one hears it only then.
            self.resume()
            try:
                self._process.wait(patience)
            except subprocess.TimeoutExpired:
                self.kill()


@contextmanager
def _uninterrupted(undo: Callable[[], None]) -> Iterator[None]:
    """Let interrupts wait until the block is done; if there was one what it did is undone."""
    if threading.current_thread() is not threading.main_thread():
        # Only the main thread is interrupted.
        yield
        return
    came: list[int] = []
    handlers = {number: signal.getsignal(number) for number in _INTERRUPTS}
    # A child begins with none of these, but would go on to ignore what is ignored here.
    waiting = {number: one for number, one in handlers.items() if callable(one)}
    for number in waiting:
        signal.signal(number, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for number, handler in waiting.items():
            signal.signal(number, handler)
    if came:
        undo()
        signal.raise_signal(came[0])


def end_as_interrupted() -> None:
    """Have this process end by SIGTERM as by Ctrl-C: its children are stopped on the way out."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)


def kept_port(owner: object) -> int:
    """A port on loopback for servers that come and go; nobody is given it while its owner lives.

    They must allow others to be bound to it, as servers do that may be started again at once.
    """
    # Bound and never listening.
    keeper = socket.socket()
    keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    keeper.bind(("127.0.0.1", 0))
    port = int(keeper.getsockname()[1])
    if platform.system() == "Linux":
        weakref.finalize(owner, keeper.close)
    else:
        # Systems like macOS let nobody share what is bound, listening or not.
        keeper.close()
    return port


def free_ports(count: int) -> list[int]:
    """Ports on loopback that nothing listens on, all different."""
    found: set[int] = set()
    while len(found) < count:
        port = secrets.choice(_PORTS)
        with socket.socket() as one, suppress(OSError):
            one.bind(("127.0.0.1", port))
            found.add(port)
    return list(found)
