"""How a worker comes by the one server that it drives: it takes a free one, or waits for one."""

import logging
import socket
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from tasks.errors import JobError
from workers.execution.place import Place
from workers.ledger.pins import Holder, Pin, Pins, Process
from workers.lifecycle.pinned import Pinned
from workers.lifecycle.process import is_gone, own

logger = logging.getLogger(__name__)

# Seconds between two looks for a server that has become free.
LOOK_SECONDS = 2.0
# Seconds between two lines about who has them all.
_TELL_SECONDS = 300.0
# So many holders are named in a line.
_NAMED = 4

Answering = Callable[[Sequence[str]], frozenset[str]]


@dataclass(frozen=True)
class Candidate:
    """A server as one look has shown it.

    Attributes:
        url: its base URL.
        pin: who drives it, or did.
        is_free: whether it can be had now.
    """

    url: str
    pin: Pin | None
    is_free: bool

    @property
    def gone(self) -> int | None:
        """The token of a holder that has died without letting go."""
        return self.pin.token if self.is_free and self.pin and not self.pin.let_go else None


def seen(urls: Sequence[str], pins: Sequence[Pin | None], here: Process) -> list[Candidate]:
    """Which servers can be had, given what is known of each, by a worker in this process."""
    return [Candidate(url, pin, _is_free(pin, here)) for url, pin in zip(urls, pins, strict=True)]


def in_order(free: Iterable[Candidate], answering: frozenset[str]) -> list[Candidate]:
    """The servers in the order in which they are tried.

    Those that answer come first; of these the ones whose worker has died, as its jobs wait there.
    """
    return sorted(free, key=lambda one: (one.url not in answering, one.gone is None))


def _is_free(pin: Pin | None, here: Process) -> bool:
    return pin is None or pin.seconds <= 0 or is_gone(pin.holder.process, here)


class Pinning:
    """Finds a server for this process."""

    def __init__(
        self,
        pins: Pins,
        urls: Sequence[str],
        *,
        name: Callable[[str], str],
        answering: Answering,
        on_wait: Callable[[], None],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Prepare.

        Args:
            pins: the leases; they go over to what `take` returns.
            urls: of the servers, that to be tried first first.
            name: of this worker if it drives the server with this URL.
            answering: which of these servers answer.
            on_wait: called before the first line about waiting.
            sleep: waits for so many seconds.
        """
        self._pins = pins
        self._places = {url: Place.of(url).key for url in urls}
        self._name = name
        self._here = own()
        self._answering = answering
        self._on_wait = on_wait
        self._sleep = sleep
        self._nonce = uuid.uuid4().hex
        self._began = time.monotonic()
        self._taking: str | None = None
        self._told = ""
        self._told_at = float("-inf")
        self.reason = "no server was taken yet"
        """Why it has none, as the latest look has shown."""

    def take(self, on_vain: Callable[[], None]) -> tuple[str, Pinned]:
        """The URL of a server and the lease on it, as soon as there is one.

        Args:
            on_vain: called after each look that found none.
        """
        try:
            while (taken := self._try()) is None:
                on_vain()
                self._sleep(LOOK_SECONDS)
        except BaseException:
            self._let_go()
            raise
        if self._told:
            seconds = time.monotonic() - self._began
            logger.info("this worker drives %s, after %.1f s as a spare", taken[0], seconds)
        return taken

    def is_another_free(self, own: str) -> bool:
        """Whether a server beside this worker's own can be had, and answers."""
        return bool(self._answering([one.url for one in self._free() if one.url != own]))

    def _try(self) -> tuple[str, Pinned] | None:
        try:
            candidates = self._look()
            free = [one for one in candidates if one.is_free]
            # Of one alone it does not matter.
            answering = self._answering([one.url for one in free]) if free[1:] else frozenset()
            for one in in_order(free, answering):
                if (pinned := self._take(one)) is not None:
                    return one.url, pinned
        except JobError as error:
            self._tell(f"no server can be taken: {error}")
        else:
            if held := [one for one in candidates if not one.is_free]:
                self._tell(_waiting(held))
        return None

    def _look(self) -> list[Candidate]:
        pins = self._pins.look(list(self._places.values()))
        urls = list(self._places)
        return seen(urls, pins, self._here)

    def _free(self) -> list[Candidate]:
        return [one for one in self._look() if one.is_free]

    def _take(self, one: Candidate) -> Pinned | None:
        place, began = self._places[one.url], time.monotonic()
        holder = Holder(worker=self._name(one.url), host=socket.gethostname(), process=self._here)
        self._taking = place
        token = self._pins.take(place, holder, self._nonce, one.gone)
        if token is None:
            self._taking = None
            return None
        return Pinned(
            self._pins, place, holder=holder, nonce=self._nonce, token=token, taken_at=began
        )

    def _let_go(self) -> None:
        """Give up what was taken just when somebody interrupted it."""
        if self._taking is not None:
            # Else its lease ends by itself.
            with suppress(JobError):
                self._pins.let_go(self._taking, self._nonce)

    def _tell(self, line: str) -> None:
        self.reason = line
        now = time.monotonic()
        kind = line.partition(":")[0]
        if kind == self._told and now - self._told_at < _TELL_SECONDS:
            return
        if not self._told:
            self._on_wait()
        self._told, self._told_at = kind, now
        logger.warning("%s", line)


def _waiting(held: Sequence[Candidate]) -> str:
    """What a spare says of those that have the servers."""
    named = [f"{one.url} by {_shown(one.pin)}" for one in held[:_NAMED] if one.pin]
    more = f" and {len(held) - _NAMED} more" if len(held) > _NAMED else ""
    both = "; COMFYUI_SHARED=1 would let both drive it" if len(held) == 1 else ""
    return (
        f"this worker waits as a spare until a server is free: driven are {', '.join(named)}{more}"
        + both
    )


def _shown(pin: Pin) -> str:
    since = datetime.fromtimestamp(pin.since, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return f"{pin.holder.worker} (on host {pin.holder.host}, since {since})"
