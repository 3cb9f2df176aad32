"""The one server that this worker drives: its lease, renewed for as long as the worker lives."""

import logging
import threading
import time
from collections.abc import Callable

from tasks.errors import JobError
from workers.execution.control import Control, ServerLost
from workers.ledger.ledger import LEASE_SECONDS, RENEW_SECONDS
from workers.ledger.pins import Holder, Pins

logger = logging.getLogger(__name__)

# A lease that ends sooner is not worth trusting.
_MARGIN = 2.0
# Seconds between questions to a Redis that does not answer.
_PAUSE = 1.0


class Pinned:
    """The lease on a server, which a thread of its own renews. Thread-safe."""

    def __init__(
        self, pins: Pins, place: str, *, holder: Holder, nonce: str, token: int, taken_at: float
    ) -> None:
        """Keep a lease that was taken; `start` begins to renew it.

        Args:
            pins: where it is; closed when it is let go of.
            place: of the server.
            holder: this worker.
            nonce: with which it was taken.
            token: that it was given.
            taken_at: when it was asked for, on the monotonic clock.
        """
        self.token = token
        self._pins = pins
        self._place = place
        self._holder = holder
        self._nonce = nonce
        self._valid_until = taken_at + LEASE_SECONDS
        self._lost = False
        self._reached = True
        self._on_lost: Callable[[], None] | None = None
        self._renewing = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pin", daemon=True)

    @property
    def is_lost(self) -> bool:
        """Whether the server is not ours any more."""
        return self._lost

    @property
    def is_sure(self) -> bool:
        """Whether nobody else can drive the server, as far as that is known without asking."""
        return not self._lost and self._valid_until - time.monotonic() > _MARGIN

    def start(self) -> None:
        """Begin to renew."""
        self._thread.start()

    def subscribe(self, on_lost: Callable[[], None]) -> None:
        """Have it called once when another worker has the server, or now if one has."""
        with self._renewing:
            self._on_lost = on_lost
            lost = self._lost
        if lost:
            on_lost()

    def confirm(self, control: Control) -> None:
        """Return if the server is still ours; waits for Redis if that is what it takes.

        Raises:
            ServerLost: it is not.
            Exception: whatever reason the control gives to end.
        """
        while not self.is_sure:
            if self._lost:
                raise ServerLost("another worker drives its server now")
            try:
                self._renew()
            except JobError as error:
                logger.warning("nobody knows who drives the server: %s", error)
                control.sleep(_PAUSE)

    def let_go(self) -> None:
        """Renew no more, and let another worker have the server at once."""
        self._ended.set()
        # A renewal that is under way must not come after it.
        with self._renewing:
            self._lost = True
            try:
                self._pins.let_go(self._place, self._nonce)
            except JobError as error:
                logger.warning("the server is free only in %.0f s: %s", LEASE_SECONDS, error)
        self._pins.close()

    def _run(self) -> None:
        while not self._ended.wait(RENEW_SECONDS):
            try:
                self._renew()
                self._reached = True
            except JobError as error:
                if self._reached:
                    logger.warning("the lease on the server cannot be renewed: %s", error)
                self._reached = False
            except Exception:
                logger.exception("the lease on the server cannot be renewed")

    def _renew(self) -> None:
        with self._renewing:
            if self._lost:
                return
            began = time.monotonic()
            if self._pins.renew(self._place, self._holder, self._nonce, self.token):
                self._valid_until = began + LEASE_SECONDS
                return
            self._lost, on_lost = True, self._on_lost
        logger.error(
            "another worker drives %s now: this one was frozen, or cut off from Redis, for longer "
            "than its lease of %.0f s",
            self._place,
            LEASE_SECONDS,
        )
        if on_lost is not None:
            on_lost()
