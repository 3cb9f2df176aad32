"""What processes use, as Linux tells it in `/proc`."""

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.model import BenchError

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Meter:
    """Measures the CPU time of groups of processes from its making on."""

    def __init__(self, groups: Mapping[str, Sequence[int]]) -> None:
        """Begin.

        Args:
            groups: process ids by name; `bench` is this process, relay and producer in it.
        """
        self._groups = {**groups, "bench": [os.getpid()]}
        self._began = time.monotonic()
        self._before = self._read()

    @property
    def seconds(self) -> float:
        """How long it has been measuring."""
        return time.monotonic() - self._began

    def cpu_seconds(self) -> dict[str, float]:
        """So far, by name."""
        return {name: cpu - self._before[name] for name, cpu in self._read().items()}

    def cores(self) -> dict[str, float]:
        """How many were busy on average, by name."""
        seconds = self.seconds
        return {name: cpu / seconds for name, cpu in self.cpu_seconds().items()}

    def _read(self) -> dict[str, float]:
        return {name: sum(map(_cpu_seconds, pids)) for name, pids in self._groups.items()}


def resident_bytes(pid: int) -> int:
    """The memory that a process holds."""
    return int(_proc(pid, "statm").split()[1]) * _PAGE


def _cpu_seconds(pid: int) -> float:
    # The name before them may hold anything, even blanks and brackets.
    fields = _proc(pid, "stat").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _proc(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text()
    except FileNotFoundError:
        raise BenchError(f"process {pid} has ended, or this is no Linux") from None
