"""A fleet whose workers take their servers by lease, and who has which."""

from collections.abc import Sequence

from sandbox.processes import ChildProcess
from sandbox.stack import StandIn
from tests.faults.scenes import Fleet, eventually
from workers.execution.place import Place
from workers.ledger.pins import Pin, Pins

SPARE = "this worker waits as a spare until a server is free: driven are "


class PinnedFleet:
    """Workers that were all started alike, on servers of which each takes one."""

    def __init__(self, fleet: Fleet, servers: Sequence[StandIn]) -> None:
        self.fleet = fleet
        self.servers = servers
        self.workers: list[ChildProcess] = []

    def launch(self, count: int) -> None:
        """Start so many workers more, all at once."""
        self.workers += [self.fleet.launch(self.servers) for _ in range(count)]

    @property
    def place(self) -> str:
        """The name of the first server for all workers."""
        return Place.of(self.servers[0].url).key

    def pins(self) -> list[Pin]:
        """Who has each server, or had it last."""
        places = [Place.of(server.url).key for server in self.servers]
        with Pins(self.fleet.valkey.url) as pins:
            return [pin for pin in pins.look(places) if pin]

    def await_pinned(self) -> dict[int, ChildProcess]:
        """The worker of each server, by the number of that, once all have one that takes jobs."""
        by_pid = {worker.pid: worker for worker in self.workers if worker.returncode is None}

        def pinned() -> dict[int, ChildProcess] | None:
            pids = [pin.holder.process.pid for pin in self.pins()]
            drivers = {number: by_pid[pid] for number, pid in enumerate(pids) if pid in by_pid}
            ready = all(is_ready(worker) for worker in drivers.values())
            return drivers if ready and len(drivers) == len(self.servers) else None

        return eventually(pinned)

    def spares(self) -> list[ChildProcess]:
        """Workers that wait."""
        drivers = self.await_pinned().values()
        return [one for one in self.workers if one.returncode is None and one not in drivers]


def is_ready(worker: ChildProcess) -> bool:
    """Whether a worker takes jobs, or has."""
    return " ready." in worker.log.read_text()


def is_spare(worker: ChildProcess, times: int = 1) -> bool:
    """Whether a worker has begun to wait for a server, so many times."""
    return worker.log.read_text().count(SPARE) >= times
