"""`python -m tests.integration.pinning_table`: a fleet of four by lease, and what ends of it."""

import signal
import time
from collections.abc import Callable, Iterator
from itertools import count
from typing import TYPE_CHECKING

from sandbox.processes import ChildProcess, end_as_interrupted
from sandbox.stack import Stack
from tests.faults.scenes import Fleet, errors, eventually
from tests.integration.pinning_scene import PinnedFleet, is_ready, is_spare
from tests.stack import bars

if TYPE_CHECKING:
    from celery.result import AsyncResult

_SERVERS, _WORKERS, _JOBS = 4, 6, 24
_SEEDS = count(1)


def main() -> None:
    """Start four servers and six workers, end two of these in the middle, and print the tables."""
    with Stack() as stack, Fleet(stack) as fleet:
        pinned = PinnedFleet(fleet, [fleet.server() for _ in range(_SERVERS)])
        pinned.launch(_WORKERS)
        scene = _Scene(pinned)
        print("| server | at first | after the first was killed | after the second was frozen |")
        print("| --- | --- | --- | --- |")
        ends = list(scene.play())
        for row in zip(_names("server"), *scene.drivers, strict=False):
            print(f"| {' | '.join(row)} |")
        print()
        print("| who ended | of | how | taken over by | after, s |")
        print("| --- | --- | --- | --- | --- |")
        for end in ends:
            print(f"| {' | '.join(end)} |")
        print()
        for line in scene.account():
            print(line)


class _Scene:
    def __init__(self, pinned: PinnedFleet) -> None:
        self._pinned = pinned
        self.drivers: list[list[str]] = []
        self.jobs: list[AsyncResult] = []

    def play(self) -> Iterator[tuple[str, ...]]:
        """Who ended, and what became of its server."""
        self._note_drivers()
        self._submit()
        yield self._end(0, "kill -9", lambda worker: worker.kill())
        self._submit()
        frozen = self._driver(1)
        # Its process is there: only its lease tells that it does nothing any more.
        yield self._end(1, "SIGSTOP", lambda worker: worker.pause())
        began = time.monotonic()
        frozen.resume()
        eventually(lambda: is_spare(frozen))
        seconds = f"{time.monotonic() - began:.1f}"
        yield self._name(frozen), "", "SIGCONT: begins anew as a spare", "", seconds

    def account(self) -> Iterator[str]:
        """What became of all jobs."""
        results = [job.get(timeout=120) for job in self.jobs]
        executions = self._pinned.fleet.executions()
        once = sum(executions.get(result["prompt_id"], 0) == 1 for result in results)
        taken_over = [result for result in results if len(errors(result)) > 1]
        yield f"jobs: {len(results)}, succeeded: {len(results)}, executed once: {once}"
        yield f"executions on all servers together: {sum(executions.values())}"
        told = sorted(str(error) for result in taken_over for error in errors(result)[:-1])
        yield f"jobs taken over: {len(taken_over)} ({', '.join(told)})"
        for worker in self._pinned.workers:
            worker.send_signal(signal.SIGCONT)

    def _submit(self) -> None:
        fleet = self._pinned.fleet
        sent = [fleet.send(bars(next(_SEEDS), seconds=2, steps=20)) for _ in range(_JOBS // 2)]
        self.jobs += sent
        begun = len(fleet.executions())
        eventually(lambda: len(fleet.executions()) >= begun + _SERVERS)

    def _end(self, server: int, how: str, end: Callable[[ChildProcess], None]) -> tuple[str, ...]:
        ended = self._driver(server)
        end(ended)
        began = time.monotonic()

        def successor() -> ChildProcess | None:
            now = self._driver(server)
            return now if now is not ended and is_ready(now) else None

        by = eventually(successor)
        seconds = f"{time.monotonic() - began:.1f}"
        self._note_drivers()
        return self._name(ended), f"server {server + 1}", how, self._name(by), seconds

    def _driver(self, server: int) -> ChildProcess:
        pid = self._pinned.pins()[server].holder.process.pid
        return next(one for one in self._pinned.workers if one.pid == pid)

    def _note_drivers(self) -> None:
        self._pinned.await_pinned()
        self.drivers.append([self._name(self._driver(number)) for number in range(_SERVERS)])

    def _name(self, worker: ChildProcess) -> str:
        return f"worker {self._pinned.workers.index(worker) + 1}"


def _names(what: str) -> Iterator[str]:
    return (f"{what} {number}" for number in count(1))


if __name__ == "__main__":
    end_as_interrupted()
    main()
