"""How a worker leaves: its jobs end in time or are given back, and it is gone when it must be."""

import logging
import os
import signal
import threading
import time
from types import FrameType
from typing import Any

from celery import platforms, signals
from celery.worker import state

from workers.execution.control import HandedOn, ServerLost, WorkerLeaving
from workers.execution.keeper import Keeper
from workers.lifecycle.process import begin_anew

logger = logging.getLogger(__name__)

# Seconds after the grace in which what is given back must be given back.
_FAREWELL_SECONDS = 4.0
# The same for somebody in a hurry.
_HURRY_SECONDS = 2.0


class Leaving:
    """SIGTERM and SIGINT leave with grace; a second one, or SIGQUIT, at once."""

    def __init__(self, keeper: Keeper, grace_seconds: float) -> None:
        """Prepare.

        Args:
            keeper: of the running jobs.
            grace_seconds: that running jobs have to end by themselves.
        """
        self._keeper = keeper
        self._grace_seconds = grace_seconds
        self.begun = False
        self.anew = False
        """Whether the process is to begin again when it has left."""
        self._hurrying = False
        self._hostname: str | None = None

    def install(self, worker: Any) -> None:
        """Take over the signals from Celery."""
        self._hostname = worker.hostname
        platforms.signals["SIGTERM"] = self._on_signal
        platforms.signals["SIGINT"] = self._on_signal
        platforms.signals["SIGQUIT"] = self._on_signal

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        # A handler may hold up nothing and wait for no lock: the rest is done by a thread.
        name = signal.Signals(number).name
        hurry = self.begun or number == signal.SIGQUIT
        first = not self.begun
        self.begun = True
        # Who was about to begin again does not.
        self.anew = False
        # What makes Celery take no more jobs, wait for those that run, and end with this code.
        state.should_stop = 0
        if first or (hurry and not self._hurrying):
            self._hurrying = hurry
            target = self._leave_at_once if hurry else self._leave
            threading.Thread(target=target, args=(name,), name=name, daemon=True).start()

    def begin_anew(self, reason: HandedOn, grace_seconds: float | None = None) -> None:
        """Give back what runs, for this reason, and then be a worker that has just been started.

        Args:
            reason: for which jobs are given back.
            grace_seconds: that they have to end by themselves; default: as after SIGTERM.
        """
        if self.begun:
            return
        self.begun = self.anew = True
        state.should_stop = 0
        grace = self._grace_seconds if grace_seconds is None else grace_seconds
        target, given = self._give_back_after, (grace, _FAREWELL_SECONDS, reason)
        threading.Thread(target=target, args=given, name="anew", daemon=True).start()

    def _leave(self, name: str) -> None:
        logger.info("%s: leaving; running jobs have %.0f s", name, self._grace_seconds)
        signals.worker_shutting_down.send(
            sender=self._hostname, sig=name, how="Warm", exitcode=state.should_stop
        )
        self._give_back_after(self._grace_seconds, _FAREWELL_SECONDS)

    def _leave_at_once(self, name: str) -> None:
        logger.info("%s: leaving at once", name)
        self._give_back_after(0.0, _HURRY_SECONDS)

    def _give_back_after(
        self,
        seconds: float,
        farewell: float,
        reason: HandedOn | None = None,
    ) -> None:
        # Whoever has us killed before we are done: the jobs are not to blame. A Redis that does
        # not answer holds up nobody. Of a server that is another worker's others may count on that.
        if not isinstance(reason, ServerLost):
            threading.Thread(target=self._keeper.announce_leaving, daemon=True).start()
        # In a daemon: a worker whose jobs have ended is gone before.
        time.sleep(seconds)
        self._keeper.leave(reason or WorkerLeaving("its worker was asked to end"))
        time.sleep(farewell)
        logger.warning("something holds up the end of this worker; its jobs go on elsewhere")
        logging.shutdown()
        if self.anew:
            begin_anew()
        os._exit(0)
