"""The latest jobs of the fleet by state, as the ledger's scripts index them."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, get_args

import redis
from pydantic import ValidationError

from workers.ledger.record import Record
from workers.ledger.scripts import JOB, JOBS
from workers.ledger.seam import translated
from workers.ledger.stories import story_key

State = Literal["running", "waiting", "succeeded", "failed", "cancelled"]
STATES: tuple[State, ...] = get_args(State)
ENDS: tuple[State, ...] = ("succeeded", "failed", "cancelled")

# Jobs asked for at once: what a failure keeps of its attempts may have kilobytes.
_AT_ONCE = 200

_FIELDS = ("outcome", "detail", "record", "until", "live", "begun", "instance", "tries")


# A job, its state, and since when it has it.
_Change = tuple[str, State, float]


@dataclass(frozen=True)
class JobEntry:
    """A job that a worker has begun, as the ledger has it. All times are Unix time, by the server.

    Attributes:
        job_id: of the job.
        state: `waiting` is a job that nobody has just now and that will go on.
        since: when it came into that state.
        begun_at: when it was claimed first; None of one that was refused.
        enqueued_at: when it was enqueued, as far as is known; not of one that has ended.
        instance: base URL of the server of its latest attempt.
        attempts: how many there were, the one that runs included.
        error: type and message of what ended it, or its last attempt.
    """

    job_id: str
    state: State
    since: float
    begun_at: float | None = None
    enqueued_at: float | None = None
    instance: str | None = None
    attempts: int = 0
    error: str | None = None


class Jobs:
    """The index of the latest jobs. Thread-safe.

    Every method raises BrokerUnavailableError or BrokerFullError.
    """

    def __init__(self, client: redis.Redis) -> None:
        """Take a Redis client that decodes answers; it stays its maker's to close."""
        self._redis = client

    def latest(
        self, states: Iterable[State] = STATES, *, limit: int, since: float = 0.0
    ) -> list[JobEntry]:
        """The jobs in these states that changed last, the latest first.

        Args:
            states: that are of interest.
            limit: how many at most.
            since: Unix time of the earliest change that is of interest.
        """
        wanted = tuple(dict.fromkeys(states))
        with translated():
            pipe = self._redis.pipeline(transaction=False)
            pipe.time()
            for state in wanted:
                pipe.zrange(
                    JOBS + state,
                    *("+inf", str(since * 1000)),
                    desc=True,
                    withscores=True,
                    offset=0,
                    num=limit,
                    byscore=True,
                )
            (seconds, micros), *told = pipe.execute()
        now = seconds + micros / 1e6
        changes = [
            (job_id, state, at / 1000)
            for state, found in zip(wanted, told, strict=True)
            for job_id, at in found
        ]
        changes.sort(key=lambda change: change[2], reverse=True)
        entries = (entry for some in _chunks(changes) for entry in self._read(some, now))
        return list(islice(entries, limit))

    def entry(self, job_id: str) -> JobEntry | None:
        """One job; None if nobody has begun it, or it is forgotten."""
        with translated():
            pipe = self._redis.pipeline(transaction=False)
            pipe.time()
            pipe.hmget(JOB + job_id, *_FIELDS)
            for state in STATES:
                pipe.zscore(JOBS + state, job_id)
            (seconds, micros), values, *scores = pipe.execute()
        kept = dict(zip(_FIELDS, values, strict=True))
        found = _state(kept)
        if found is None:
            return None
        at = scores[STATES.index(found)] or float(kept["begun"] or 0)
        return _entry((job_id, found, at / 1000), kept, None, seconds + micros / 1e6)

    def count(self, states: Iterable[State], *, since: float) -> dict[State, int]:
        """How many jobs came into each of these states since then, Unix time."""
        wanted = tuple(states)
        with translated():
            pipe = self._redis.pipeline(transaction=False)
            for state in wanted:
                pipe.zcount(JOBS + state, str(since * 1000), "+inf")
            return dict(zip(wanted, pipe.execute(), strict=True))

    def known(self, job_ids: Sequence[str]) -> frozenset[str]:
        """Those of these jobs that somebody has begun, or that have ended."""
        with translated():
            pipe = self._redis.pipeline(transaction=False)
            for job_id in job_ids:
                pipe.hexists(JOB + job_id, "begun")
                pipe.hexists(JOB + job_id, "outcome")
            told = pipe.execute()
        pairs = zip(job_ids, told[::2], told[1::2], strict=True)
        return frozenset(job_id for job_id, begun, ended in pairs if begun or ended)

    def cancelled(self, job_ids: Sequence[str]) -> frozenset[str]:
        """Those of these jobs that are not to be begun, or begun again."""
        with translated():
            pipe = self._redis.pipeline(transaction=False)
            for job_id in job_ids:
                pipe.hget(JOB + job_id, "cancelled")
            told = pipe.execute()
        return frozenset(job_id for job_id, mark in zip(job_ids, told, strict=True) if mark)

    def _read(self, changes: Sequence[_Change], now: float) -> Iterator[JobEntry]:
        with translated():
            pipe = self._redis.pipeline(transaction=False)
            for job_id, *_ in changes:
                pipe.hmget(JOB + job_id, *_FIELDS)
                pipe.lindex(story_key(job_id), -1)
            told = pipe.execute()
        for change, values, last in zip(changes, told[::2], told[1::2], strict=True):
            kept = dict(zip(_FIELDS, values, strict=True))
            # What the ledger has forgotten does not go on; what was refused it never knew.
            if change[1] in ENDS or kept["begun"]:
                yield _entry(change, kept, last, now)


def _chunks(changes: Sequence[_Change]) -> Iterator[Sequence[_Change]]:
    for start in range(0, len(changes), _AT_ONCE):
        yield changes[start : start + _AT_ONCE]


def _state(kept: Mapping[str, str | None]) -> State | None:
    """The state of a job by what its hash says."""
    ended = next((state for state in ENDS if state == kept["outcome"]), None)
    if ended is not None or kept["record"] is None:
        return ended
    return "running" if kept["live"] in ("1", "2") else "waiting"


def _entry(
    change: _Change, kept: Mapping[str, str | None], last: str | None, now: float
) -> JobEntry:
    job_id, state, since = change
    begun = float(kept["begun"]) / 1000 if kept["begun"] else None
    if state in ENDS:
        attempts, error = _end(state, kept["detail"], last)
        tries = len(attempts) or int(kept["tries"] or 0)
        instance = attempts[-1]["instance"] if attempts else kept["instance"]
        return JobEntry(job_id, state, since, begun, None, instance, tries, error)
    record = _record(kept["record"])
    if record is None:
        return JobEntry(job_id, state, since, begun)
    last_error = record.attempts[-1].error if record.attempts else None
    tries, instance = len(record.attempts), record.instance
    if state == "running":
        tries += 1
        until = float(kept["until"] or 0) / 1000
        if until < now:
            # Its worker is gone, and no other one has it yet.
            state, since = "waiting", until
    elif record.attempts:
        instance = record.attempts[-1].instance
    enqueued_at = record.enqueued_at or None
    return JobEntry(job_id, state, since, begun, enqueued_at, instance, tries, last_error)


def _end(state: State, detail: str | None, last: str | None) -> tuple[list[Any], str | None]:
    """The attempts at a job that has failed, and its error."""
    if state != "failed":
        return [], None
    with suppress(ValueError, LookupError, TypeError):
        if detail:
            kept = json.loads(detail)
            return kept["attempts"], f"{kept['type']}: {kept['message']}"
        # What was refused is no job of the ledger: only its story tells why.
        return [], json.loads(last or "")["error"]
    return [], None


def _record(text: str | None) -> Record | None:
    with suppress(ValidationError):
        return Record.model_validate_json(text or "", extra="ignore")
    return None
