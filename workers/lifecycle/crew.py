"""The workers of one host: a process for each server, started again when it ends."""

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType

from settings import SettingsError

# Seconds until a process that has ended is started again, at first and at most.
_PAUSE_FIRST = 1.0
_PAUSE_MOST = 30.0
# One that has lived for so many seconds ended for a new reason.
_SOUND_SECONDS = 60.0

_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
_LAST_PORT = 65_535
# How one ends that was asked to: also one that had not yet begun to listen for it.
_IN_ORDER = (0, *(-number for number in _FORWARDED))


@dataclass
class _Member:
    """The worker of one server."""

    url: str
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    failures: int = 0
    due_at: float = 0.0


def failures_after(earlier: int, lived: float) -> int:
    """How many short lives in a row there have been, after one of so many seconds."""
    return earlier + 1 if lived < _SOUND_SECONDS else 1


def pause_after(failures: int) -> float:
    """Seconds until the next start."""
    # The exponent is bounded: it may fail for weeks.
    longest: float = min(_PAUSE_MOST, _PAUSE_FIRST * 2 ** min(failures - 1, 16))
    return longest


def prefixed(url: str, line: bytes) -> bytes:
    """A line as it is shown: with its server, unless it is JSON, which programs read."""
    return line if line.startswith(b"{") else f"{url} | ".encode() + line


def check_ports(first: int | None, workers: int) -> None:
    """Refuse a METRICS_PORT that leaves none for the last of these workers.

    Raises:
        SettingsError: says up to which there are enough.
    """
    most = _LAST_PORT - workers + 1
    if first is not None and first > most:
        raise SettingsError(
            f"METRICS_PORT: found {first} for the first of {workers} workers, expected {most} or "
            "less, as each of the others has the one that follows"
        )


class Crew:
    """Starts a command for each server, relays what they print and the signals that it gets."""

    def __init__(
        self, command: Sequence[str], urls: Sequence[str], say: Callable[[str], None]
    ) -> None:
        """Prepare.

        Args:
            command: starts a worker; the environment tells it its server.
            urls: of the servers.
            say: tells the user a line.
        """
        self._command = command
        self._members = [_Member(url) for url in urls]
        self._say = say
        # Members that have ended, and signals; a handler may put something in at any time.
        self._happened: queue.SimpleQueue[_Member | int] = queue.SimpleQueue()
        self._printing = threading.Lock()
        self._leaving = False
        self._failed = False

    def run(self) -> int:
        """Keep them running until a signal has ended them all; the exit code."""
        for number in _FORWARDED:
            signal.signal(number, self._on_signal)
        while self._is_at_work():
            self._start_due()
            try:
                happened = self._happened.get(timeout=self._idle_seconds())
            except queue.Empty:
                continue
            if isinstance(happened, _Member):
                self._note_end(happened)
            else:
                self._forward(happened)
        return int(self._failed)

    def _is_at_work(self) -> bool:
        return not self._leaving or any(one.process is not None for one in self._members)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._happened.put(number)

    def _forward(self, number: int) -> None:
        self._leaving = True
        for one in self._members:
            if one.process is not None:
                one.process.send_signal(number)

    def _idle_seconds(self) -> float | None:
        due = [one.due_at for one in self._members if one.process is None]
        if self._leaving or not due:
            return None
        return max(0.0, min(due) - time.monotonic())

    def _start_due(self) -> None:
        now = time.monotonic()
        for one in self._members:
            if one.process is None and now >= one.due_at and not self._leaving:
                self._start(one)

    def _start(self, member: _Member) -> None:
        # From the main thread: the system takes the end of the one that started them for ours.
        shim = (sys.executable, "-m", "workers.lifecycle.child", str(os.getpid()))
        member.started_at = time.monotonic()
        try:
            process = member.process = subprocess.Popen(  # noqa: S603  # our own command
                [*shim, *self._command],
                env=_environment(os.environ, member.url, self._members.index(member)),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                # Of a terminal's Ctrl-C they hear through us, once.
                start_new_session=True,
            )
        except OSError as error:
            # The others need not end because the machine has no room for one more.
            self._put_off(member, f"cannot be started: {error.strerror}")
            return
        threading.Thread(target=self._relay, args=(member, process), daemon=True).start()

    def _relay(self, member: _Member, process: subprocess.Popen[bytes]) -> None:
        for line in process.stdout or ():
            self._print(prefixed(member.url, line))
        process.wait()
        self._happened.put(member)

    def _print(self, line: bytes) -> None:
        with self._printing:
            try:
                sys.stdout.buffer.write(line)
                sys.stdout.buffer.flush()
            except OSError:
                # Nobody reads it; what is not taken from a worker would stop it.
                pass

    def _note_end(self, member: _Member) -> None:
        process, member.process = member.process, None
        code = process.returncode if process is not None else None
        if self._leaving:
            self._failed = self._failed or code not in _IN_ORDER
            return
        self._put_off(member, f"has ended ({code})")

    def _put_off(self, member: _Member, why: str) -> None:
        now = time.monotonic()
        member.failures = failures_after(member.failures, now - member.started_at)
        pause = pause_after(member.failures)
        member.due_at = now + pause
        self._say(f"the worker of {member.url} {why}; again in {pause:.0f} s")


def _environment(own: Mapping[str, str], url: str, number: int) -> dict[str, str]:
    """What makes of a process the worker of one server, the others of which have ports below."""
    port = own.get("METRICS_PORT")
    metrics = {"METRICS_PORT": str(int(port) + number)} if port else {}
    return {**own, "COMFYUI_URL": url, "COMFYUI_URLS": "", **metrics}
