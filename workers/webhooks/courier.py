"""Delivers what is in the outbox, whoever put it there, beside the jobs and in nobody's way."""

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Literal

from tasks.errors import JobError
from workers.ledger.outbox import Outbox, Taken
from workers.logs.context import about
from workers.observing import Observe, WebhookTried
from workers.web import Reply, Web, WebError
from workers.webhooks import signature
from workers.webhooks.schedule import (
    Decision,
    Delivered,
    GivenUp,
    Postponed,
    after_try,
    is_too_late,
)

logger = logging.getLogger(__name__)

# Notices that one worker sends at once.
_AT_ONCE = 8
# Seconds after which it is looked whether others have left something, or something is due again.
_LOOK_SECONDS = 3.0
# Seconds that the end of the thread is waited for: what is being sent then is sent again.
_JOIN_SECONDS = 2.0


class Courier:
    """Sends what is due, in threads of its own. Thread-safe."""

    def __init__(
        self,
        outbox: Outbox,
        web: Web,
        keys: Sequence[bytes],
        *,
        observe: Observe,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Prepare; `start` begins to send.

        Args:
            outbox: what is to be sent.
            web: hosts that may be told.
            keys: to sign with; without any nothing is ever begun.
            observe: is told of each try.
            clock: Unix time.
        """
        self._outbox = outbox
        self._web = web
        self._keys = keys
        self._observe = observe
        self._clock = clock
        self._free = threading.BoundedSemaphore(_AT_ONCE)
        self._reached = True
        self._stopping = threading.Event()
        self._nudged = threading.Event()
        self._thread = threading.Thread(target=self._run, name="webhooks", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        if self._keys:
            self._thread.start()

    def stop(self) -> None:
        """Take nothing more; what is being sent is other workers' when its lease has ended."""
        self._stopping.set()
        self._nudged.set()
        if self._thread.is_alive():
            self._thread.join(_JOIN_SECONDS)

    def nudge(self) -> None:
        """Look at once: something has been put into the outbox."""
        self._nudged.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._nudged.clear()
            try:
                self.send_due()
            except Exception:
                logger.exception("no webhooks can be sent: a fault of comfyfleet's own")
            self._nudged.wait(_LOOK_SECONDS)

    def send_due(self) -> None:
        """Send all that is due, each in a thread of its own; wait while these are enough."""
        more = True
        while more:
            self._free.acquire()
            more = False
            try:
                more = self._begin()
            finally:
                if not more:
                    self._free.release()

    def _begin(self) -> bool:
        """Begin to send what is due, in a thread that frees its place; whether there was any."""
        # While a place was waited for the worker may have come to its end.
        taken = None if self._stopping.is_set() else self._take()
        if taken is None:
            return False
        # A daemon: no receiver keeps the worker from its end.
        threading.Thread(target=self._work, args=(taken,), name="webhook", daemon=True).start()
        return True

    def _take(self) -> Taken | None:
        try:
            taken = self._outbox.take()
        except JobError as error:
            if self._reached:
                logger.warning("no webhooks can be sent: %s", error)
            self._reached = False
            return None
        self._reached = True
        return taken

    def _work(self, taken: Taken) -> None:
        try:
            with about(job_id=taken.notice.job_id):
                self._deliver_safely(taken)
        finally:
            self._free.release()
            # Others of its host may have waited for it.
            self._nudged.set()

    def _deliver_safely(self, taken: Taken) -> None:
        try:
            self.deliver(taken)
        except JobError as error:
            logger.warning("what became of webhook %s is not noted: %s", taken.notice.id, error)
        except Exception:
            # It comes again when its lease has ended.
            logger.exception("webhook %s: a fault of comfyfleet's own", taken.notice.id)

    def deliver(self, taken: Taken) -> None:
        """Send a notice and note what became of it.

        Raises:
            BrokerUnavailableError, BrokerFullError: that could not be noted.
        """
        began = time.monotonic()
        status, decision = self._tried(taken)
        outcome = self._settle(taken, decision)
        notice, seconds = taken.notice, time.monotonic() - began
        self._observe(WebhookTried(notice.job_id, notice.event, outcome, status, seconds))

    def _tried(self, taken: Taken) -> tuple[int | None, Decision]:
        if is_too_late(taken.age, taken.tries, taken.failures):
            return None, GivenUp("it has not been delivered within a day")
        answer = self._sent(taken)
        decision = after_try(
            answer,
            age=taken.age,
            tries=taken.tries,
            failures=taken.failures,
            jitter=random.random(),  # noqa: S311  # no secret
        )
        return answer.status if isinstance(answer, Reply) else None, decision

    def _sent(self, taken: Taken) -> Reply | WebError:
        notice = taken.notice
        signed = signature.headers(notice.id, int(self._clock()), notice.body, self._keys)
        try:
            return self._web.post(notice.url, notice.body.encode(), signed)
        except WebError as error:
            return error
        except Exception as error:
            logger.exception("webhook %s: a fault of comfyfleet's own", notice.id)
            return WebError(f"could not be asked ({type(error).__name__})")

    def _settle(
        self, taken: Taken, decision: Decision
    ) -> Literal["delivered", "postponed", "given up"]:
        notice = taken.notice
        # Not the URL: receivers have secrets in theirs.
        told = (notice.event, notice.origin)
        match decision:
            case Delivered():
                self._outbox.delivered(notice.id)
                logger.info("webhook %s delivered to %s", *told)
                return "delivered"
            case Postponed(error, seconds, host_seconds):
                self._outbox.postpone(taken, error, seconds, host_seconds)
                logger.warning(
                    "webhook %s not delivered to %s, again in %.0f s: %s",
                    *(*told, seconds, error),
                )
                return "postponed"
            case GivenUp(error, host_seconds):
                self._outbox.give_up(taken, error, host_seconds)
                logger.error(
                    "webhook %s to %s is given up (comfyfleet webhooks list): %s",
                    *(*told, error),
                )
                return "given up"
