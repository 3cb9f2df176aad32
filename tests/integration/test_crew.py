"""The workers of one host as processes; small ones stand in for them."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.processes import ChildProcess
from tests.faults.scenes import eventually

pytestmark = pytest.mark.integration

A, B = "http://a", "http://b"
CREW = f"""
import sys
from workers.lifecycle.crew import Crew
command = [sys.executable, "-S", "-u", "-c", sys.argv[1]]
sys.exit(Crew(command, ["{A}", "{B}"], lambda line: print(line, flush=True)).run())
"""
CHILD = """
import os, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(CODE))
print("at work as", os.getpid(), os.environ["COMFYUI_URL"])
signal.pause()
"""


class Host:
    """The workers of a host, and what starts them in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "log"
        self.folder = folder
        self.started: list[ChildProcess] = []

    def start(self, code: int = 0) -> ChildProcess:
        """Start it; its workers end with this code."""
        child = CHILD.replace("CODE", str(code))
        process = ChildProcess([sys.executable, "-c", CREW, child], self.log)
        self.started.append(process)
        eventually(lambda: self.pids(A) and self.pids(B))
        return process

    def pids(self, url: str) -> list[int]:
        """Of all workers of a server that there were."""
        lines = (line.split() for line in self.log.read_text().splitlines())
        return [int(words[5]) for words in lines if words[:2] == [url, "|"] and words[-1:] == [url]]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    one = Host(tmp_path)
    yield one
    for process in one.started:
        process.stop()


def test_who_dies_is_started_again_and_all_are_asked_to_end(host: Host) -> None:
    crew = host.start()
    os.kill(host.pids(A)[0], signal.SIGKILL)
    eventually(lambda: len(host.pids(A)) == 2)
    assert f"the worker of {A} has ended (-9); again in 1 s" in host.log.read_text()
    assert len(host.pids(B)) == 1
    crew.send_signal(signal.SIGTERM)
    assert crew.wait(10) == 0


def test_one_that_does_not_leave_in_order_is_told(host: Host) -> None:
    crew = host.start(code=3)
    crew.send_signal(signal.SIGTERM)
    assert crew.wait(10) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="no other system tells of a parent's end")
def test_who_starts_them_is_killed_and_they_leave(host: Host) -> None:
    crew = host.start()
    pids = [*host.pids(A), *host.pids(B)]
    crew.kill()
    eventually(lambda: not any(is_there(pid) for pid in pids))


def is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
