"""Decides where a job waits: here, or in a lane for servers that do it better."""

import logging
import threading
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import lru_cache

from tasks.errors import InvalidWorkflowError, JobError
from tasks.workflow import Workflow
from workers.ledger.servers import Loaded, Server, Servers
from workers.routing.capabilities import Capabilities, merged
from workers.routing.judgement import Judgement, Prepare, judge
from workers.routing.lacks import Lack, hinted, lacks, told, would_run_in_part
from workers.routing.lanes import Here, Lane, Later
from workers.routing.pace import Pace
from workers.routing.survey import Survey

logger = logging.getLogger(__name__)

# Seconds after which it is looked again whether a server has come back.
_LOOK_SECONDS = 5.0

# Capabilities of other servers that are kept at hand: a job is judged by all that differ.
_MOST_KEPT = 32
# Jobs for others that are sorted in a row while the server executes; and until it gets one of them
# all the same, so that it does not idle.
_SORTED_AHEAD = 16
_MOST_SORTED = 32


@dataclass(frozen=True)
class Wanted:
    """A job, as far as its way depends on it.

    Attributes:
        prepare: makes its workflow for a server with such node classes.
        is_sound: whether there can be a server that runs it; asked only if this one does not.
        placed: the names of its input files.
        in_lane: whether it comes from a lane.
        unable: digests of capabilities that do not suffice, as far as that lane tells.
        came_again: whether a worker had it before.
    """

    prepare: Prepare
    is_sound: Callable[[], bool] = lambda: True
    placed: Collection[str] = ()
    in_lane: bool = False
    unable: frozenset[str] = frozenset()
    came_again: bool = False


class Router:
    """Sends jobs to lanes, and knows what this server has loaded. Thread-safe."""

    def __init__(
        self,
        *,
        servers: Servers,
        survey: Survey,
        pace: Pace,
        place: str,
        is_idle: Callable[[], bool],
        wait_seconds: float,
    ) -> None:
        """Take what it asks.

        Args:
            servers: of the fleet.
            survey: of this worker's server.
            pace: of this worker's server.
            place: of this worker's server.
            is_idle: whether the server has nothing to do but what is being decided about.
            wait_seconds: that a job waits at most for a server that has its models loaded while
                others have them not; 0: not at all.
        """
        self._servers = servers
        self._survey = survey
        self._pace = pace
        self._place = place
        self._is_idle = is_idle
        self.wait_seconds = wait_seconds
        self._lock = threading.Lock()
        self._sorted = 0
        self.models = ""
        """Names the models that the server has loaded, or is about to load."""
        self._foreign = lru_cache(_MOST_KEPT)(self._fetch)
        survey.subscribe(self._stay_warm)

    @property
    def digest(self) -> str:
        """Of what this server can do; empty if that is not known."""
        known = self._survey.capabilities
        return known.digest if known is not None else ""

    @property
    def returning_seconds(self) -> float:
        """Seconds until servers that were there before must have come back."""
        return self._survey.returning_seconds

    @property
    def tired(self) -> bool:
        """Whether it is enough of sorting for others until the server has nothing to do."""
        return self._sorted >= _SORTED_AHEAD

    def decide(self, job: Wanted) -> Here | Lane:
        """Where a job that this worker has taken is to wait."""
        own = self._survey.capabilities
        others = self._survey.others
        if own is None or not others:
            # Nobody asks what is loaded here, and what is known of it is out of date from now on.
            self.models = ""
            return Here()
        try:
            if job.in_lane:
                # It may be here because those who could run it are gone.
                others = self._survey.look_at_others()
            elif job.came_again:
                return self._go_on(job, own, others)
            return self._decide(job, own, others)
        except JobError as error:
            logger.warning("a job goes nowhere else: %s", error)
        except Exception:
            # Whatever it is, an attempt meets it again, where it is told.
            logger.exception("a job cannot be judged")
        return Here()

    def after_refusal(self, job: Wanted) -> Lane | Later | None:
        """Where a job goes that this server has not taken; None: nowhere.

        Raises:
            JobError: Redis does not tell what others can do.
        """
        if not job.is_sound():
            return None
        judgement = self._judged_here(job)
        if judgement.able:
            try:
                self._survey.complain()
            except JobError as error:
                # That it has refused the job is all that there is to know of it.
                logger.warning("why the server refuses a job is not known: %s", error)
            else:
                judgement = self._judged_here(job)
        # Nodes may judge their values by rules of their own: other servers may have other rules.
        lane = self._lane_of_able(job, self._survey.look_at_others(), judgement)
        if lane is None and not judgement.able and (seconds := self._patience(job)) > 0:
            return Later(seconds)
        return lane

    def _patience(self, job: Wanted) -> float:
        """Seconds to wait, after this worker's start, for servers that may be about to come."""
        survey = self._survey
        if survey.settling_seconds > 0 or survey.returning_seconds == 0:
            return survey.settling_seconds
        known = (self._judgement(job, digest) for digest in self._servers.remembered())
        may_return = any(one is not None and one.able for one in known)
        return min(survey.returning_seconds, _LOOK_SECONDS) if may_return else 0.0

    def explained(self, job: Wanted, error: InvalidWorkflowError) -> InvalidWorkflowError:
        """The refusal of a job that no server takes, with what is missing or wrong."""
        own, others = self._survey.capabilities, self._survey.others
        if own is None:
            return error
        # Another server may have what is nearly meant.
        known = [one for other in others if (one := self._capabilities(other.digest)) is not None]
        here, *elsewhere = (judge(job.prepare, one, job.placed).lacks for one in (own, *known))
        if _lacks_parts(here):
            # Where nothing is missing it is seen what is wrong with the job itself.
            wrong = next((its for its in elsewhere if its and not _lacks_parts(its)), here)
        elif any(lack.node_id for lack in here):
            wrong = here
        else:
            return error
        missing = hinted(wrong, own.nodes, merged([own, *known]))
        nobody = " (and no other server can run it)" if others else ""
        return InvalidWorkflowError(f"{told(missing)}{nobody}")

    def refuse_parts(self, workflow: Workflow, placed: Collection[str]) -> None:
        """Refuse a workflow of which this server would execute a part before it could be stopped.

        Raises:
            InvalidWorkflowError: names what is missing.
        """
        own = self._survey.capabilities
        if own is None or not would_run_in_part(workflow, own):
            return
        missing = [lack for lack in lacks(workflow, own, placed) if lack.is_sure]
        if missing:
            raise InvalidWorkflowError(told(missing))

    def unfit(self, job: Wanted) -> set[str]:
        """The places of servers that cannot run a job, as far as is known."""
        others = self._survey.others
        unable = self._unable(job, others)
        return {one.place for one in others if one.digest in unable}

    def _decide(self, job: Wanted, own: Capabilities, others: tuple[Server, ...]) -> Here | Lane:
        if not self.wait_seconds and {one.digest for one in others} == {own.digest}:
            return Here()
        judgement = judge(job.prepare, own, job.placed)
        if not judgement.able:
            lane = self._lane_of_able(job, others, judgement) if job.is_sound() else None
            return lane or Here(models=judgement.models)
        unable = self._unable(job, others)
        models = judgement.models if self.wait_seconds else ""
        if models not in ("", self.models) and not job.in_lane:
            lane = self._lane_of_warm(models, unable)
            if lane is not None:
                return lane
        return self._here(models, unable)

    def _go_on(self, job: Wanted, own: Capabilities, others: tuple[Server, ...]) -> Here:
        """A job that came to this worker by what another one made of it; it loads its models."""
        judgement = judge(job.prepare, own, job.placed)
        loads = self.wait_seconds and judgement.able
        return self._here(judgement.models if loads else "", self._unable(job, others))

    def _here(self, models: str, unable: frozenset[str]) -> Here:
        """A job that is begun here, with what it loads if that is of account."""
        if not models:
            return Here(unable=unable)
        with self._lock:
            self._sorted = 0
            cold, self.models = self.models != models, models
        if cold:
            self._servers.warm_up(self._loaded(models), must=True)
        loading = self._pace.loading(models)
        bound = self.wait_seconds if loading is None else min(self.wait_seconds, loading)
        return Here(models, cold, unable, bound)

    def _lane_of_warm(self, models: str, unable: frozenset[str]) -> Lane | None:
        """The lane for a job whose models are not loaded here; None if it is begun here."""
        idle = self._is_idle()
        if idle and self._sorted >= _MOST_SORTED:
            return None
        if self._servers.warm_up(self._loaded(models), unable=unable, may=idle) == "here":
            return None
        with self._lock:
            self._sorted += 1
        return Lane.of(models, unable, self._pace.worth(models) or Lane.worth)

    def _judged_here(self, job: Wanted) -> Judgement:
        own = self._survey.capabilities
        return judge(job.prepare, own, job.placed) if own is not None else Judgement(())

    def _lane_of_able(
        self, job: Wanted, others: Iterable[Server], judgement: Judgement
    ) -> Lane | None:
        """The lane for a job that this server cannot run; None if no other one can, either."""
        own = self.digest
        digests = {one.digest for one in others} - {own}
        models = judgement.models
        # Those that another worker knows of this one may not: they would send it back for ever.
        unable = {own, *(job.unable & digests)}
        for digest in digests - unable:
            its = self._judgement(job, digest)
            if its is not None and not its.able:
                unable.add(digest)
            elif its is not None:
                models = its.models
        if digests - unable:
            return Lane.of(models if self.wait_seconds else "", unable)
        return None

    def _unable(self, job: Wanted, others: Iterable[Server]) -> frozenset[str]:
        digests = {one.digest for one in others} - {self.digest}
        judged = {digest: self._judgement(job, digest) for digest in digests}
        return frozenset(digest for digest, its in judged.items() if its and not its.able)

    def _judgement(self, job: Wanted, digest: str) -> Judgement | None:
        """Whether servers with such capabilities can run a job; None if they are not known."""
        known = self._capabilities(digest)
        return judge(job.prepare, known, job.placed) if known is not None else None

    def _capabilities(self, digest: str) -> Capabilities | None:
        try:
            return self._foreign(digest)
        except LookupError:
            return None

    def _fetch(self, digest: str) -> Capabilities:
        packed = self._servers.capabilities(digest)
        if packed is None:
            # Raised, and so not kept: it may be told a moment later.
            raise LookupError(digest)
        try:
            return Capabilities.unpacked(packed)
        except ValueError as error:
            # Another version may tell it in another form.
            raise LookupError(digest) from error

    def _stay_warm(self) -> None:
        """Have others know what is loaded here."""
        if self.models:
            self._servers.warm_up(self._loaded(self.models), must=True)

    def forget_loaded(self) -> None:
        """Note that the server may have nothing loaded any more, or is to be used no more."""
        if not self.models:
            return
        self.models = ""
        try:
            self._servers.warm_up(self._loaded(""), must=True)
        except JobError as error:
            logger.warning("others still count on what was loaded here: %s", error)

    def _loaded(self, models: str) -> Loaded:
        return Loaded(models, self.digest, self._place)


def _lacks_parts(found: Iterable[Lack]) -> bool:
    """Whether classes or models are missing, which another server may have."""
    return any(lack.node_class or lack.model for lack in found)
