"""All parts of a worker: how they are put together, started and closed."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from settings import Settings
from workers.bootstrap.outside import Outside, outside
from workers.bootstrap.running import Running, running
from workers.bootstrap.taking import Taking, taking
from workers.bootstrap.watchers import Watchers, watchers
from workers.lifecycle.pinned import Pinned
from workers.observing import Observe


@dataclass(frozen=True)
class Parts:
    """What a worker process holds open."""

    outside: Outside
    taking: Taking
    watchers: Watchers
    running: Running

    def start(self) -> None:
        """Listen to ComfyUI and begin to keep what will be claimed."""
        self.watchers.traces.start()
        self.outside.notifications.start()
        self.outside.circuit.start()
        self.outside.store_watch.start()
        self.taking.survey.start()
        self.taking.keeper.start()
        if self.taking.moving is not None:
            self.taking.moving.start()
        self.running.courier.start()
        self.watchers.telling.start()

    def close(self) -> None:
        """Close everything, the listeners first."""
        with ExitStack() as closing:
            closing.callback(self.watchers.traces.close)
            closing.callback(self.outside.ledger.close)
            closing.callback(self.watchers.telling.stop)
            closing.callback(self.outside.servers.close)
            closing.callback(self.outside.store.close)
            closing.callback(self.outside.uploaders.shutdown, wait=False, cancel_futures=True)
            closing.callback(self.outside.comfyui.close)
            closing.callback(self.taking.keeper.stop)
            closing.callback(self.taking.router.forget_loaded)
            closing.callback(self.taking.survey.stop)
            closing.callback(self.outside.store_watch.stop)
            closing.callback(self.outside.circuit.stop)
            closing.callback(self.outside.notifications.stop)
            if self.taking.moving is not None:
                closing.callback(self.taking.moving.stop)
            closing.callback(self.running.courier.stop)


def assemble(
    settings: Settings,
    worker: str,
    *observers: Observe,
    pinned: Pinned | None = None,
    is_another_free: Callable[[str], bool] | None = None,
) -> Parts:
    """Make and connect the parts of a worker; nothing is opened or started yet.

    Args:
        settings: of a worker that drives `COMFYUI_URL`.
        worker: its name.
        observers: those who watch its jobs.
        pinned: the lease on that server; without one others may drive it, too.
        is_another_free: whether a server beside the one with this URL can be had.
    """
    clients = outside(settings, worker)
    taken = taking(settings, worker, clients, pinned=pinned, is_another_free=is_another_free)
    watched = watchers(settings, worker, clients, taken, observers)
    run = running(settings, worker, clients, taken, pinned=pinned, observe=watched.observe)
    return Parts(clients, taken, watched, run)
