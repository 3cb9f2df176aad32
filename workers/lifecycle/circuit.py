"""The circuit between a worker and its ComfyUI server: closed while jobs may be taken."""

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from tasks.errors import JobError
from workers.checks.comfyui import judge_error
from workers.comfyui import ComfyUI

logger = logging.getLogger(__name__)

# Seconds between two probes of a server that is down, at first and at most.
BACKOFF_FIRST = 0.5
BACKOFF_MOST = 10.0

# Seconds between two attempts on a server that answers and takes no prompts, at most: each may cost
# a job one of its own.
REFUSED_MOST = 60.0

# So many different jobs it must have refused in a row; of one alone the job may be the reason.
_JOBS_REFUSED = 2

# Seconds until a server is looked at of which nobody complains.
SAFETY_SECONDS = 30.0

# A probe under way may have to wait for its timeout; a daemon thread holds up nobody.
_STOP_SECONDS = 1.0


@dataclass(frozen=True)
class State:
    """What is known of the server. Times are seconds of one monotonic clock.

    Attributes:
        since: when it was last opened or closed.
        probe_at: when to look next.
        closed: whether jobs may be taken; not before the server has answered once.
        reason: why it is open; empty while it is closed, or nobody has looked yet.
        failures: how many looks in a row have failed.
        quarantined: prompts that hang, which must have left the server before it closes.
        suspected_at: when somebody last complained.
        answers: whether the last look was answered.
        refused: jobs whose prompts it has not taken since it took one, not all of them.
        refusals: how often it has opened because of these.
        refused_until: when it may be tried again.
    """

    since: float
    probe_at: float
    closed: bool = False
    reason: str = ""
    failures: int = 0
    quarantined: frozenset[str] = frozenset()
    suspected_at: float = float("-inf")
    answers: bool = False
    refused: frozenset[str] = frozenset()
    refusals: int = 0
    refused_until: float = float("-inf")

    @property
    def takes_no_prompts(self) -> bool:
        """Whether the server is to blame, not a job, for a prompt that it does not take."""
        return len(self.refused) >= _JOBS_REFUSED


@dataclass(frozen=True)
class Answered:
    """A probe that began at `asked_at` was answered: these prompts run."""

    asked_at: float
    running: tuple[str, ...]


@dataclass(frozen=True)
class Failed:
    """A probe failed."""

    reason: str


@dataclass(frozen=True)
class Suspected:
    """Somebody has reason to think that the server is down."""


@dataclass(frozen=True)
class Quarantined:
    """A prompt runs for ever, whatever is done to it."""

    prompt_id: str


@dataclass(frozen=True)
class Refused:
    """A server that answers has not taken the prompt of this job."""

    job_id: str


@dataclass(frozen=True)
class Accepted:
    """The server has taken a prompt."""


Event = Answered | Failed | Suspected | Quarantined | Refused | Accepted


def fold(  # noqa: PLR0911  # one return an event type
    state: State, event: Event, now: float, jitter: float
) -> State:
    """What is known after an event.

    Args:
        state: what was known before.
        event: what has happened.
        now: the time, in seconds of the state's clock.
        jitter: 0 to 1: a wait is half of its longest at 0 and all of it at 1.
    """
    match event:
        case Answered(asked_at, running):
            hanging = state.quarantined.intersection(running)
            if hanging:
                reason = f"prompt {min(hanging)} still hangs"
                opened = _opened(state, reason, now, jitter)
                return replace(opened, quarantined=hanging, answers=True)
            if now < state.refused_until:
                return replace(state, probe_at=state.refused_until, answers=True)
            return replace(
                state,
                closed=True,
                since=state.since if state.closed else now,
                # The answer may be older than a suspicion that came while it was under way.
                probe_at=now if state.suspected_at > asked_at else now + SAFETY_SECONDS,
                reason="",
                failures=0,
                quarantined=frozenset(),
                answers=True,
            )
        case Failed(reason):
            return replace(_opened(state, reason, now, jitter), answers=False)
        case Suspected():
            # Whoever finds it down is no reason to ask a server more often that is known to be.
            probe_at = now if state.closed else state.probe_at
            return replace(state, suspected_at=now, probe_at=probe_at)
        case Quarantined(prompt_id):
            opened = _opened(state, f"prompt {prompt_id} hangs", now, jitter)
            return replace(opened, quarantined=state.quarantined | {prompt_id})
        case Refused(job_id):
            return _refused(state, job_id, now, jitter)
        case Accepted():
            return replace(state, refused=frozenset(), refusals=0, refused_until=float("-inf"))


def _refused(state: State, job_id: str, now: float, jitter: float) -> State:
    # More than are needed would only grow.
    refused = state.refused if state.takes_no_prompts else state.refused | {job_id}
    known = replace(state, refused=refused)
    # Those that were under way when it opened say nothing new.
    if not known.takes_no_prompts or now < state.refused_until:
        return known
    until = now + _backoff(state.refusals, REFUSED_MOST, jitter)
    opened = _opened(known, "it answers, and takes no prompts", now, jitter)
    return replace(opened, refusals=state.refusals + 1, refused_until=until, probe_at=until)


def _opened(state: State, reason: str, now: float, jitter: float) -> State:
    return replace(
        state,
        closed=False,
        reason=reason,
        since=now if state.closed else state.since,
        failures=state.failures + 1,
        probe_at=now + _backoff(state.failures, BACKOFF_MOST, jitter),
    )


def _backoff(times: int, most: float, jitter: float) -> float:
    """Seconds to wait after so many vain attempts before."""
    # The exponent is bounded: a server may be down for weeks.
    longest: float = min(most, BACKOFF_FIRST * 2 ** min(times, 16))
    return longest * (1 + jitter) / 2


class Circuit:
    """Watches the worker's one ComfyUI server from a thread of its own.

    Open until the server answers for the first time. While it is closed the server is left in
    peace, but for a look every now and then, until somebody suspects it. Thread-safe.
    """

    def __init__(self, comfyui: ComfyUI) -> None:
        """Prepare it, open; `start` begins to look."""
        self._comfyui = comfyui
        now = time.monotonic()
        self._state = State(since=now, probe_at=now)
        self._changed = threading.Condition()
        self._stopping = False
        self._listeners: list[Callable[[bool], None]] = []
        self._thread = threading.Thread(target=self._run, name="comfyui-circuit", daemon=True)

    @property
    def closed(self) -> bool:
        """Whether the server is there, as far as anybody knows, so that jobs may be taken."""
        return self._state.closed

    @property
    def reason(self) -> str:
        """Why no jobs may be taken; empty if they may, or nobody has looked yet."""
        return self._state.reason

    @property
    def answers(self) -> bool:
        """Whether the server answered when it was looked at last: also one in quarantine may."""
        return self._state.answers

    def subscribe(self, on_change: Callable[[bool], None]) -> None:
        """Have it called from the circuit's thread with `closed` whenever that has changed."""
        self._listeners.append(on_change)

    def wait_closed(self, seconds: float) -> bool:
        """Wait until jobs may be taken; whether that came in time."""
        with self._changed:
            return self._changed.wait_for(lambda: self._state.closed, seconds)

    def suspect(self) -> None:
        """Look at the server now, and open if it does not answer. Costs the caller nothing."""
        self._feed(Suspected())

    def quarantine(self, prompt_id: str) -> None:
        """Open at once, and stay open for as long as the server says that this prompt runs."""
        self._feed(Quarantined(prompt_id))

    def refuse(self, job_id: str) -> bool:
        """Note that the server answers and has not taken a job's prompt; whether it takes none."""
        self._feed(Refused(job_id))
        return self._state.takes_no_prompts

    def accept(self) -> None:
        """Note that the server has taken a prompt."""
        if self._state.refused:
            self._feed(Accepted())

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more, and tell nobody of any change."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(_STOP_SECONDS)

    def _feed(self, event: Event) -> None:
        with self._changed:
            before, now = self._state, time.monotonic()
            after = self._state = fold(before, event, now, random.random())  # noqa: S311  # no secret
            self._changed.notify_all()
        instance = self._comfyui.base_url
        if after.reason and not before.reason:
            logger.warning("no jobs are taken until %s is back: %s", instance, after.reason)
        elif after.closed and not before.closed:
            seconds = now - before.since
            logger.info("ComfyUI at %s is there after %.1f s; jobs are taken", instance, seconds)

    def _run(self) -> None:
        told = False
        while True:
            with self._changed:
                while not self._stopping and self._state.closed == told:
                    seconds = self._state.probe_at - time.monotonic()
                    if seconds <= 0:
                        break
                    self._changed.wait(seconds)
                if self._stopping:
                    return
                closed = self._state.closed
            if closed != told:
                told = closed
                self._tell(closed)
            else:
                event = self._probe()
                if not self._stopping:
                    self._feed(event)

    def _probe(self) -> Event:
        asked_at = time.monotonic()
        try:
            return Answered(asked_at, self._comfyui.queue().running)
        except JobError as error:
            judged = judge_error(error)
            return Failed(f"{judged.sentence} (fix: {judged.fix})")
        except Exception as error:  # noqa: BLE001  # a dead thread would never look again
            return Failed(str(error) or repr(error))

    def _tell(self, closed: bool) -> None:
        for on_change in self._listeners:
            try:
                on_change(closed)
            except Exception:
                logger.exception("a listener of the circuit failed")
