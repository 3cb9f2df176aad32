"""The outbox: what receivers are still to be told, put there by the step that it tells of."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import redis

from workers.ledger import outbox_scripts as scripts
from workers.ledger.scripts import BEGIN
from workers.ledger.seam import translated

logger = logging.getLogger(__name__)

# Seconds that a worker has for one try.
LEASE_SECONDS = 30.0
# Notices for one host that the fleet has in hand at once.
_MOST_AT_ONCE = 4

State = Literal["waiting", "given up"]


@dataclass(frozen=True)
class Notice:
    """One event for one receiver.

    Attributes:
        id: the same for the same event, however often it is put here or sent.
        job_id: of the job.
        event: such as `job.failed`.
        origin: scheme, host and port that it goes to: what is fair is fair between these.
        url: where to.
        body: what is sent.
    """

    id: str
    job_id: str
    event: str
    origin: str
    url: str
    body: str

    @property
    def arguments(self) -> list[str]:
        """As the scripts take it."""
        return [self.id, self.job_id, self.event, self.origin, self.url, self.body]

    def say_no_room(self) -> None:
        """Log that it is dropped."""
        logger.error(
            "its webhook is not sent: too much waits for %s, or for all hosts", self.origin
        )


@dataclass(frozen=True)
class Taken:
    """A notice that is ours to send for `LEASE_SECONDS`.

    Attributes:
        notice: what to send.
        token: proves it.
        age: seconds since it was put into the outbox.
        tries: in vain so far.
        failures: of its host in a row.
    """

    notice: Notice
    token: int
    age: float
    tries: int
    failures: int


@dataclass(frozen=True)
class Waiting:
    """A notice as whoever looks sees it; times are Unix time in seconds.

    Attributes:
        id: of the notice.
        state: whether it is still to be sent.
        since: when it is due, or was given up.
        job_id: of its job.
        event: such as `job.failed`.
        url: where it goes.
        tries: in vain.
        error: of the last of them; empty if there was none.
        at: when it was put into the outbox.
    """

    id: str
    state: State
    since: float
    job_id: str
    event: str
    url: str
    tries: int
    error: str
    at: float


class Outbox:
    """The notices of the fleet. Thread-safe.

    Every method raises BrokerUnavailableError or BrokerFullError.
    """

    def __init__(self, client: redis.Redis) -> None:
        """Take a Redis client that decodes answers; it stays its maker's to close."""
        self._put = _script(client, scripts.PUT)
        self._take = _script(client, scripts.TAKE)
        self._delivered = _script(client, scripts.DELIVERED)
        self._postpone = _script(client, scripts.POSTPONE)
        self._give_up = _script(client, scripts.GIVE_UP)
        self._retry = _script(client, scripts.RETRY)
        self._discard = _script(client, scripts.DISCARD)
        self._list = _script(client, scripts.LIST)

    def put(self, notice: Notice) -> bool:
        """Have it sent; False if too much waits for its host already, or for all."""
        with translated():
            is_put = bool(self._put(args=notice.arguments))
        if not is_put:
            notice.say_no_room()
        return is_put

    def take(self) -> Taken | None:
        """A notice that is due, of the host that has waited longest."""
        with translated():
            found: Any = self._take(args=[_ms(LEASE_SECONDS), _MOST_AT_ONCE])
        return _taken(found) if found else None

    def delivered(self, notice_id: str) -> None:
        """Strike a notice off; its host is well."""
        with translated():
            self._delivered(args=[notice_id])

    def postpone(
        self, taken: Taken, error: str, seconds: float, host_seconds: float | None
    ) -> None:
        """Have a notice sent again later, unless somebody else has it.

        Args:
            taken: the notice.
            error: why it was not delivered.
            seconds: until it is due.
            host_seconds: until its host is asked for anything; None: the host is well.
        """
        with translated():
            failed = _failed(taken, error, host_seconds)
            self._postpone(args=[*failed, _ms(seconds)])

    def give_up(self, taken: Taken, error: str, host_seconds: float | None) -> None:
        """Send a notice no more, and keep it for people to see, unless somebody else has it."""
        with translated():
            self._give_up(args=_failed(taken, error, host_seconds))

    def retry(self, notice_id: str) -> bool:
        """Have a notice sent now, as if it were new; whether it is known."""
        with translated():
            return bool(self._retry(args=[notice_id]))

    def discard(self, notice_id: str) -> bool:
        """Forget a notice; whether it was known."""
        with translated():
            return bool(self._discard(args=[notice_id]))

    def all(self, most: int = 1000) -> list[Waiting]:
        """Notices that wait, so many at most, and all that were given up, newest first."""
        with translated():
            found: Any = self._list(args=[most])
        return [_waiting(one) for one in found]


def _script(client: redis.Redis, body: str) -> Any:
    return client.register_script(BEGIN + scripts.FUNCTIONS + body)


def _failed(taken: Taken, error: str, host_seconds: float | None) -> list[Any]:
    gate = _ms(host_seconds or 0)
    return [taken.notice.id, taken.token, error, gate, taken.failures]


def _taken(answer: Sequence[Any]) -> Taken:
    id_, token, origin, job_id, event, url, body, age, tries, failures = answer
    notice = Notice(id_, job_id, event, origin, url, body)
    return Taken(notice, int(token), age / 1000, tries, failures)


def _waiting(answer: Sequence[Any]) -> Waiting:
    id_, state, since, job_id, event, url, tries, error, at = answer
    return Waiting(
        *(id_, state, float(since) / 1000, job_id, event, url, int(tries), error),
        at=float(at) / 1000,
    )


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
