"""Keeps what this worker has: renews its leases, and tells jobs when they are to end."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum

from tasks.errors import JobCancelledError, JobError
from workers.execution.appetite import Appetite, appetite, jobs_ahead
from workers.execution.control import Control, LeaseLost
from workers.ledger import Claimed, Ledger
from workers.ledger.ledger import CANCEL, LEASE_SECONDS, LOST, RENEW_SECONDS
from workers.routing.lanes import Here
from workers.routing.pace import Pace

logger = logging.getLogger(__name__)

# A lease that ends sooner is not worth trusting.
_MARGIN = 2.0

# Seconds that the end of the thread is waited for.
_JOIN_SECONDS = 2.0

# Seconds between questions to a Redis that does not answer.
_PAUSE = 1.0

# Seconds for which a worker that has given a job away leaves the next one to others.
_POLITE_SECONDS = 0.5

# What the newest job says about how long jobs execute, against all before it.
_NEWEST_SHARE = 0.3

# Seconds after which a job that is still being staged keeps no other one from being taken.
_STAGING_SECONDS = 2.0

# Seconds after which a prompt that should have begun stands behind somebody else's.
_HELD_UP_SECONDS = 1.0


class Phase(Enum):
    """What a job needs the server's GPU for."""

    WAITING = "waiting"
    """Nothing yet."""
    EXECUTING = "executing"
    STORING = "storing"
    """Nothing any more."""


@dataclass
class Lease:
    """This worker's hold on one job."""

    job_id: str
    token: int
    valid_until: float
    # The server's clock, Unix time, minus this process's monotonic one; seconds.
    offset: float = 0.0
    # The prompt was taken off its server, so that nobody can go on with it.
    prompt_stopped: bool = False
    phase: Phase = Phase.WAITING
    # When its prompt was queued, on the monotonic clock.
    queued_at: float | None = None
    # When it was taken, on the monotonic clock.
    taken_at: float = 0.0
    # Somebody else has the job.
    lost: bool = False
    # Until when no other server would do as well as this one, by the ledger's clock.
    bound_until: float = float("inf")
    # What is known of the server and the job.
    here: Here = field(default_factory=Here)
    control: Control = field(default_factory=Control)

    def now(self) -> float:
        """The time by the ledger's clock, Unix time in seconds."""
        return time.monotonic() + self.offset


class Keeper:
    """Renews the leases of this worker's jobs in a thread of its own. Thread-safe."""

    def __init__(
        self,
        ledger: Ledger,
        place: str,
        *,
        pace: Pace,
        takes_jobs: Callable[[], bool],
        is_tired: Callable[[], bool],
        server_answers: Callable[[], bool],
        stop_prompt: Callable[[str], bool],
    ) -> None:
        """Prepare; `start` begins to renew.

        Args:
            ledger: where the leases are.
            place: this worker's.
            pace: of the server, where it is noted how long jobs execute.
            takes_jobs: whether other workers may count on this one.
            is_tired: whether nothing is to be taken ahead, as what comes is for others.
            server_answers: whether it makes sense to ask anything of the server.
            stop_prompt: stops one that others have taken over from this place; whether it is
                stopped.
        """
        self._ledger = ledger
        self._place = place
        self._pace = pace
        self._takes_jobs = takes_jobs
        self._is_tired = is_tired
        self._server_answers = server_answers
        self._stop_prompt = stop_prompt
        self._leaving: Exception | None = None
        self._listeners: list[Callable[[], None]] = []
        self._followers: list[Callable[[], None]] = []
        self._polite_until = float("-inf")
        # That a job executes here, as a rule.
        self._seconds: float | None = None
        self._leases: dict[tuple[str, int], Lease] = {}
        # Jobs with which the GPU has done, and whose end is still being told.
        self._unsettled: set[str] = set()
        self._lock = threading.Lock()
        self._obeying = threading.Lock()
        self._stopping = False
        self._nudged = threading.Event()
        self._reached = True
        self._thread = threading.Thread(target=self._run, name="lease-keeper", daemon=True)

    def start(self) -> None:
        """Begin to renew."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; other workers no longer count on this one."""
        self._stopping = True
        self._nudged.set()
        if self._thread.is_alive():
            self._thread.join(_JOIN_SECONDS)
        try:
            self._ledger.announce(self._place, live=False)
        except JobError as error:
            logger.warning("other workers could not be told that this one leaves: %s", error)

    def nudge(self) -> None:
        """Tell the others now: whether this worker takes jobs has changed."""
        self._nudged.set()

    @contextmanager
    def holding(self, job_id: str, claim: Claimed, claimed_at: float) -> Iterator[Lease]:
        """Keep a job that was claimed at this moment of the monotonic clock."""
        token = claim.token
        valid_until, offset = claimed_at + LEASE_SECONDS, claim.now - claimed_at
        lease = Lease(job_id, token, valid_until, offset, taken_at=claimed_at)
        with self._lock:
            self._leases[job_id, token] = lease
            if self._leaving is not None:
                lease.control.stop(self._leaving)
        try:
            yield lease
        finally:
            with self._lock:
                del self._leases[job_id, token]
                if lease.phase is Phase.STORING:
                    self._unsettled.add(job_id)
            self._tell_phase()

    def settle(self, job_id: str) -> None:
        """Note that a job's message is not in this worker's hands any more, or not for now."""
        with self._lock:
            self._unsettled.discard(job_id)

    def subscribe(self, on_idle: Callable[[], None]) -> None:
        """Have it called, from a job's thread, whenever the GPU has done with a job."""
        self._listeners.append(on_idle)

    def follow(self, on_phase: Callable[[], None]) -> None:
        """Have it called, from a job's thread, whenever `phases` may have changed."""
        self._followers.append(on_phase)

    def execute(self, lease: Lease) -> None:
        """Note that the GPU executes a job, unless it has done with it by now."""
        with self._lock:
            begins = lease.phase is Phase.WAITING
            if begins:
                lease.phase = Phase.EXECUTING
        if begins:
            self._tell_phase()

    def store(self, lease: Lease, seconds: float | None = None) -> None:
        """Note that the GPU has done with a job, which it executed for so many seconds."""
        with self._lock:
            lease.phase = Phase.STORING
        if seconds is not None:
            before = seconds if self._seconds is None else self._seconds
            self._seconds = before + _NEWEST_SHARE * (seconds - before)
            self._pace.note(lease.here.models, seconds, cold=lease.here.cold)
        for on_idle in self._listeners:
            on_idle()
        self._tell_phase()

    def _tell_phase(self) -> None:
        for on_phase in self._followers:
            on_phase()

    def appetite(self, taken: int) -> Appetite:
        """Whether one more job is to be taken, beside so many that are in this worker's hands."""
        with self._lock:
            # The GPU has done with these, or waits for them in vain.
            others = sum(not _needs_gpu(lease) for lease in self._leases.values())
            # What was taken over an earlier connection may not be among those yet.
            unrendered = max(taken - others - len(self._unsettled), len(self._leases) - others)
        return appetite(
            unrendered,
            ahead=0 if self._is_tired() else jobs_ahead(self._seconds),
            polite=time.monotonic() < self._polite_until,
        )

    @property
    def phases(self) -> list[Phase]:
        """Of each job that this worker has."""
        with self._lock:
            return [lease.phase for lease in self._leases.values()]

    @property
    def reaches_ledger(self) -> bool:
        """Whether Redis answered when it was told last, which is every `RENEW_SECONDS`."""
        return self._reached

    @property
    def is_idle(self) -> bool:
        """Whether the server has nothing to do."""
        with self._lock:
            return not any(_needs_gpu(lease) for lease in self._leases.values())

    @property
    def spare(self) -> Lease | None:
        """The job that a server elsewhere could begin sooner than this one, if there is one."""
        with self._lock:
            unrendered = [one for one in self._leases.values() if one.phase is not Phase.STORING]
        for position, lease in reversed(list(enumerate(unrendered))):
            if _is_spare(lease, is_next=position == 0, now=time.monotonic()):
                return lease
        return None

    def hand_over(self, lease: Lease) -> None:
        """Have a job handed on to a server elsewhere, unless it has begun by now."""
        self._polite_until = time.monotonic() + _POLITE_SECONDS
        lease.control.want_elsewhere()

    def is_sure(self, lease: Lease) -> bool:
        """Whether a job is ours beyond doubt, as far as that can be known without asking."""
        return lease.valid_until - time.monotonic() > _MARGIN and not lease.lost

    def stop_jobs(self, reason: Exception, job_id: str | None = None) -> None:
        """End every job that runs here, or one, with this reason."""
        with self._lock:
            leases = [one for one in self._leases.values() if job_id in (None, one.job_id)]
        for lease in leases:
            lease.control.stop(reason)

    def announce_leaving(self) -> None:
        """Say that this worker may be gone before it lets go of its jobs: they are not to blame."""
        with self._lock:
            claims = list(self._leases)
        try:
            self._ledger.leave(claims)
        except JobError as error:
            logger.warning("other workers could not be told that this one leaves: %s", error)
        self.nudge()

    def leave(self, reason: Exception) -> None:
        """End every job that runs here, or still begins, with this reason."""
        with self._lock:
            self._leaving = reason
        self.stop_jobs(reason)

    def order_stop(self, prompt_id: str) -> None:
        """Have a prompt of this worker's own place stopped as soon as that is possible."""
        try:
            self._ledger.order_stop(self._place, prompt_id)
        except JobError as error:
            logger.warning("prompt %s may run for nobody: %s", prompt_id, error)

    def confirm(self, lease: Lease) -> None:
        """Return if the job is still ours; waits for Redis if that is what it takes.

        Raises:
            LeaseLost: it is not.
        """
        while lease.valid_until - time.monotonic() < _MARGIN:
            try:
                self._renew([lease])
            except JobError as error:
                logger.warning("nobody knows whose it is: %s", error)
                lease.control.sleep(_PAUSE)
        lease.control.check()

    def _run(self) -> None:
        while not self._stopping:
            self._nudged.wait(RENEW_SECONDS)
            self._nudged.clear()
            try:
                with self._lock:
                    leases = list(self._leases.values())
                if leases:
                    self._renew(leases)
                self._announce()
                self._reached = True
            except JobError as error:
                if self._reached:
                    logger.warning("leases cannot be renewed: %s", error)
                self._reached = False
            except Exception:
                logger.exception("leases cannot be renewed")

    def _renew(self, leases: Iterable[Lease]) -> None:
        began = time.monotonic()
        by_job = {(lease.job_id, lease.token): lease for lease in leases}
        answers = self._ledger.renew(by_job)
        for key, answer in answers.items():
            lease = by_job[key]
            lease.valid_until = began + LEASE_SECONDS
            if answer == LOST:
                lease.lost = True
                lease.control.stop(LeaseLost("somebody else has the job"))
            elif answer == CANCEL:
                lease.control.stop(JobCancelledError("the job was revoked"))

    def _announce(self) -> None:
        orders = self._ledger.announce(self._place, live=self._takes_jobs())
        # A server in quarantine is used again only when it has got rid of them.
        if orders and self._server_answers() and not self._obeying.locked():
            # Not here: a slow server must not keep leases from being renewed.
            threading.Thread(target=self._obey, args=(orders,), daemon=True).start()

    def _obey(self, orders: Iterable[str]) -> None:
        with self._obeying:
            try:
                if stopped := [one for one in orders if self._stop_prompt(one)]:
                    self._ledger.stopped(self._place, stopped)
            except JobError as error:
                logger.warning("prompts were stopped, which could not be noted: %s", error)


def _needs_gpu(lease: Lease) -> bool:
    """Whether a job needs the GPU now or soon: one whose input files take long to come does not."""
    if lease.phase is not Phase.WAITING or lease.queued_at is not None:
        return lease.phase is not Phase.STORING
    return time.monotonic() - lease.taken_at < _STAGING_SECONDS


def _is_spare(lease: Lease, *, is_next: bool, now: float) -> bool:
    if lease.phase is not Phase.WAITING or lease.control.wanted_elsewhere:
        return False
    if lease.now() < lease.bound_until:
        return False
    if not is_next:
        return True
    return lease.queued_at is not None and now - lease.queued_at > _HELD_UP_SECONDS
