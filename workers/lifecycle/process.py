"""Which process this is, whether another one on the same machine still is, and a new life."""

import logging
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from workers.ledger.pins import Process

logger = logging.getLogger(__name__)

_BOOT = Path("/proc/sys/kernel/random/boot_id")
# Two clocks that begin at different times would make of one process two.
_NAMESPACES = ("pid", "time")
# States of processes that have ended, and of which somebody has yet to take note.
_ENDED = ("Z", "X", "x")


def own() -> Process:
    """This process; where nothing can be told apart (macOS) one without a machine."""
    pid = os.getpid()
    try:
        boot = _BOOT.read_text().strip()
        namespaces = " ".join(filter(None, map(_namespace, _NAMESPACES)))
    except OSError:
        return Process(pid=pid)
    return Process(boot=boot, namespaces=namespaces, pid=pid, started=_started(pid))


def is_gone(other: Process, here: Process) -> bool:
    """Whether the process has certainly ended, or has become this one: seen from this one."""
    if not here.boot or not here.started:
        return False
    if (other.boot, other.namespaces) != (here.boot, here.namespaces):
        return False
    if other == here:
        # What this process was before it began anew.
        return True
    try:
        os.kill(other.pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        # It is there, and somebody else's.
        pass
    state, started = _state(other.pid)
    return state in _ENDED or (bool(started and other.started) and started != other.started)


def begin_anew() -> NoReturn:
    """Become what this process was when it was started, under the same id."""
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    try:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606  # as we were
    except OSError:
        # Who cannot begin anew must not stay, either: whoever started it may do better.
        logger.exception("this process cannot begin anew")
        os._exit(1)


def _started(pid: int) -> str:
    return _state(pid)[1]


def _state(pid: int) -> tuple[str, str]:
    """The state of a process and when it began; both empty where they are not shown."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "", ""
    # The name before these may hold anything, spaces and brackets too.
    fields = stat.rpartition(")")[2].split()
    return fields[0], fields[19]


def _namespace(kind: str) -> str | None:
    try:
        return os.readlink(f"/proc/self/ns/{kind}")  # noqa: PTH115  # it is no path
    except FileNotFoundError:
        # An older kernel has fewer of them.
        return None
