"""`python -m workers.lifecycle.child PID COMMAND ...`: a command that is asked to end with PID.

Whoever starts workers may be killed; they must not go on without anybody who knows of them.
"""

import ctypes
import os
import signal
import sys

# Of prctl(2); it outlives execve(2).
_PR_SET_PDEATHSIG = 1


def main(parent: int, command: list[str]) -> None:
    """Become the command, unless the parent is gone already."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() == parent:
        os.execv(command[0], command)  # noqa: S606  # what it was told to become


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
