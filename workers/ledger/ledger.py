"""The ledger: one hash a job, changed only by the scripts, each of them one step for all to see."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, cast

from workers.ledger import scripts
from workers.ledger.connection import connect
from workers.ledger.dead_letters import KEY as DEAD
from workers.ledger.dead_letters import DeadLetter, DeadLetters
from workers.ledger.fleet import Fleet
from workers.ledger.jobs import Jobs
from workers.ledger.outbox import Notice, Outbox
from workers.ledger.record import Record
from workers.ledger.scripts import JOB
from workers.ledger.seam import translated
from workers.ledger.stories import Stories

# Seconds that a worker has a job without renewing. Shorter than the broker's visibility timeout, so
# that a dead worker's job can be had when its message comes again.
LEASE_SECONDS = 12.0
# Seconds between renewals: three may fail.
RENEW_SECONDS = 3.0
# Seconds after a restart of the server in which owners can renew what has run out meanwhile: they
# try each RENEW_SECONDS.
RESTART_GRACE_SECONDS = 4.5
# The same after a failover: who was asking a server that does not answer learns of it so late.
FAILOVER_GRACE_SECONDS = 15.0
# Seconds that a worker counts as live after it said so.
PLACE_SECONDS = 12.0

# At least this long a job's end is remembered, so that its id is one job.
_KEEP_SECONDS = 7 * 24 * 3600

_PLACES = "comfyfleet:places"
_STOP = "comfyfleet:stop:"

Outcome = Literal["succeeded", "failed", "cancelled"]


@dataclass(frozen=True)
class Claimed:
    """The job is ours for `LEASE_SECONDS`, longer if the lease is renewed.

    Attributes:
        token: proves it, against all who had the job before.
        now: the server's time of the claim, Unix time in seconds.
        is_new: nobody had it before.
        owner_died: the one who had it last did not let go of it.
        owner_left: it had said before that it was leaving.
        record: what is known of it.
    """

    token: int
    now: float
    is_new: bool
    owner_died: bool
    record: Record
    owner_left: bool = False


@dataclass(frozen=True)
class Held:
    """Somebody has the job, or it pauses between attempts; ask again after so many seconds."""

    seconds: float


@dataclass(frozen=True)
class Ended:
    """The job has ended; the detail is what `end` was given."""

    outcome: Outcome
    detail: str


@dataclass(frozen=True)
class Cancelled:
    """The job is not to be begun any more, and is ours to end.

    Attributes:
        token: proves it.
        record: of a job that somebody had before.
    """

    token: int
    record: Record | None


Verdict = Claimed | Held | Ended | Cancelled

# What a claim says of an owner that is gone: it had said that it was leaving.
_LEFT = 2

# What the end of a job says if its notice found no room.
_NO_ROOM = 2

# What a renewal says of each job.
LOST, OURS, CANCEL = 0, 1, 2


class Ledger:
    """The jobs of the fleet. Thread-safe.

    Every method raises BrokerUnavailableError or BrokerFullError.
    """

    def __init__(self, url: str, *, keep_seconds: float = _KEEP_SECONDS) -> None:
        """Prepare a client; nothing is opened before the first command.

        Args:
            url: of the Redis server, as `connect` takes it.
            keep_seconds: how long a job is remembered after its last change.
        """
        self._redis = connect(url, decode_responses=True)
        self.dead_letters = DeadLetters(self._redis)
        self.outbox = Outbox(self._redis)
        self.jobs = Jobs(self._redis)
        self.stories = Stories(self._redis)
        self.fleet = Fleet(self._redis)
        self._keep = _ms(max(keep_seconds, _KEEP_SECONDS))
        self._claim = self._redis.register_script(scripts.CLAIM)
        self._save = self._redis.register_script(scripts.SAVE)
        self._release = self._redis.register_script(scripts.RELEASE)
        self._commit = self._redis.register_script(scripts.COMMIT)
        self._end = self._redis.register_script(scripts.END)
        self._cancel = self._redis.register_script(scripts.CANCEL)
        self._announce = self._redis.register_script(scripts.ANNOUNCE)
        self._live = self._redis.register_script(scripts.LIVE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._redis.close()

    # Jobs

    def claim(self, job_id: str, record: Record, nonce: str) -> Verdict:
        """Take a job, if nobody has it.

        Args:
            job_id: of the job.
            record: kept for a job that nobody had before.
            nonce: of this claim; one that is repeated, as its answer was lost, is the same claim.
        """
        with translated():
            answer = self._claim(
                keys=[JOB + job_id],
                args=[
                    _ms(LEASE_SECONDS),
                    self._keep,
                    record.model_dump_json(),
                    _ms(RESTART_GRACE_SECONDS),
                    nonce,
                    _ms(FAILOVER_GRACE_SECONDS),
                ],
            )
        return _verdict(answer)

    def renew(self, claims: Iterable[tuple[str, int]]) -> dict[tuple[str, int], int]:
        """Renew the leases of these jobs and tokens; each is `OURS`, `LOST` or to `CANCEL`."""
        claims = list(claims)
        with translated():
            pipe = self._redis.pipeline(transaction=False)
            for job_id, token in claims:
                pipe.eval(scripts.RENEW, 1, JOB + job_id, token, _ms(LEASE_SECONDS))
            return dict(zip(claims, pipe.execute(), strict=True))

    def save(self, job_id: str, token: int, record: Record) -> bool:
        """Replace the record of a job; whether it is still ours."""
        with translated():
            args: list[str | int] = [token, record.model_dump_json()]
            return bool(self._save(keys=[JOB + job_id], args=args))

    def release(self, job_id: str, token: int, record: Record, pause: float = 0.0) -> bool:
        """Let go of a job that has not ended; nobody can have it for `pause` seconds."""
        with translated():
            args: list[str | int] = [token, _ms(pause), self._keep, record.model_dump_json()]
            return bool(self._release(keys=[JOB + job_id], args=args))

    def commit(self, job_id: str, token: int, manifest: str) -> str | None:
        """Decide with which manifest a job is committed, once; None if it is not ours any more."""
        with translated():
            decided: str | None = self._commit(keys=[JOB + job_id], args=[token, manifest])
            return decided

    def committed(self, job_id: str) -> str | None:
        """The manifest that was decided for a job which has not ended, if one was."""
        with translated():
            decided: Any = self._redis.hget(JOB + job_id, "manifest")
        return cast("str | None", decided)

    def leave(self, claims: Iterable[tuple[str, int]]) -> None:
        """Say of these jobs and tokens that their owner may be gone before it lets go of them."""
        with translated():
            pipe = self._redis.pipeline(transaction=False)
            for job_id, token in claims:
                pipe.eval(scripts.LEAVE, 1, JOB + job_id, token)
            pipe.execute()

    def end(
        self,
        job_id: str,
        token: int,
        outcome: Outcome,
        detail: str = "",
        letter: DeadLetter | None = None,
        *,
        notice: Notice | None = None,
    ) -> bool:
        """Record how a job ended; whether it was still ours.

        Args:
            job_id: of the job.
            token: of its claim.
            outcome: how it ended.
            detail: for whoever asks for the job later.
            letter: its dead letter, if it gets one.
            notice: what a receiver is to be told of it, in the same step.
        """
        with translated():
            put_aside = letter.model_dump_json() if letter else ""
            told = notice.arguments if notice else []
            args: list[str | int] = [token, self._keep, outcome, detail, job_id, put_aside, *told]
            ended = int(self._end(keys=[JOB + job_id, DEAD], args=args))
        if notice is not None and ended == _NO_ROOM:
            notice.say_no_room()
        return bool(ended)

    def cancel(self, job_id: str, *, running: bool) -> str | None:
        """Keep a job from being begun again; its outcome if it has ended.

        Args:
            job_id: of the job.
            running: whether it is to end also while somebody has it.
        """
        with translated():
            args = [self._keep, int(running)]
            outcome: str | None = self._cancel(keys=[JOB + job_id], args=args)
            return outcome

    def record(self, job_id: str) -> Record | None:
        """What is known of a job that has not ended."""
        with translated():
            found = self._redis.hget(JOB + job_id, "record")
        return _record(found) if found else None

    def ended(self, job_id: str) -> Ended | None:
        """How a job ended; None if it has not, or is not remembered."""
        with translated():
            kept: list[Any] = list(self._redis.hmget(JOB + job_id, "outcome", "detail"))
        outcome, detail = kept
        return Ended(outcome, detail) if outcome else None

    # Places

    def announce(self, place: str, *, live: bool) -> list[str]:
        """Say whether a worker takes jobs for a place; returns the prompts to be stopped there."""
        with translated():
            keys = [_PLACES, _STOP + place]
            args: list[str | int] = [place, _ms(PLACE_SECONDS) if live else 0]
            return list(self._announce(keys=keys, args=args))

    def live_places(self) -> frozenset[str]:
        """The places for which a worker takes jobs."""
        with translated():
            return frozenset(self._live(keys=[_PLACES]))

    def order_stop(self, place: str, prompt_id: str) -> None:
        """Have a prompt stopped by whoever works at a place next."""
        with translated():
            pipe = self._redis.pipeline()
            pipe.sadd(_STOP + place, prompt_id)
            pipe.pexpire(_STOP + place, self._keep)
            pipe.execute()

    def stopped(self, place: str, prompt_ids: Iterable[str]) -> None:
        """Strike off prompts that are stopped."""
        with translated():
            self._redis.srem(_STOP + place, *prompt_ids)


def _verdict(answer: Sequence[Any]) -> Verdict:
    match answer:
        case ["claimed", now, token, is_new, died, begun, text]:
            record = _record(text)
            if not record.since:
                record = record.model_copy(update={"since": begun / 1000})
            return Claimed(
                *(token, now / 1000, bool(is_new), bool(died), record), owner_left=died == _LEFT
            )
        case ["cancelled", _, token, record]:
            return Cancelled(token, _record(record) if record else None)
        case ["ended", _, outcome, detail]:
            return Ended(outcome, detail)
        case _:
            return Held(answer[2] / 1000)


def _record(text: str | bytes) -> Record:
    # A later version may have written more than this one knows, in each part of it.
    return Record.model_validate_json(text, extra="ignore")


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
