"""Where a job may run: which servers can do it, and which its next attempt is better off at."""

import logging
from collections.abc import Mapping
from typing import Any

from tasks.errors import BrokerFullError, BrokerUnavailableError, InvalidWorkflowError, JobError
from tasks.retry import Where
from tasks.workflow import Workflow
from workers.execution.keeper import Lease
from workers.execution.order import Limits, NotNow, Order
from workers.execution.preparation import is_sound, prepare
from workers.execution.takeover import Takeover
from workers.ledger import Ledger, Record, Route
from workers.ledger.patience import REDIS_PAUSE
from workers.routing.lanes import Here, Later
from workers.routing.router import Router, Wanted

logger = logging.getLogger(__name__)

# Seconds for which a wish about the place of the next attempt holds, once that is due.
_PREFER_SECONDS = 6.0
_AVOID_SECONDS = 30.0
# Seconds that a worker keeps a job to itself which is meant for another one.
_PASS_SECONDS = 0.5


class Placement:
    """Knows which of a worker's jobs are for other workers. Thread-safe."""

    def __init__(
        self, *, ledger: Ledger, router: Router, takeover: Takeover, place: str, limits: Limits
    ) -> None:
        """Take what it asks.

        Args:
            ledger: knows who is there, and is given back what is for others.
            router: knows what servers can do.
            takeover: knows whether a prompt is worth waiting for.
            place: of this worker's server.
            limits: how large a job may be and what it may use.
        """
        self._ledger = ledger
        self._router = router
        self._takeover = takeover
        self._place = place
        self._limits = limits

    def route(self, order: Order) -> Here:
        """What is known of this server and a job that is its own.

        Raises:
            NotNow: it is for other servers.
        """
        if order.revoked or order.expired:
            # It need not wait for another server to be told so.
            return Here()
        match self._router.decide(self._wanted(order)):
            case Here() as here:
                return here
            case lane:
                logger.info("waits for another server (lane %s)", lane.id)
                raise NotNow(0.0, lane=lane)

    def pass_on(self, lease: Lease, record: Record) -> None:
        """Leave a job to the worker that it is meant for, if there is one.

        Raises:
            NotNow: there is.
        """
        route = record.route
        if lease.now() >= route.until or not self._is_meant_for_others(route):
            return
        others = self._others()
        if route.prefer:
            waits = route.prefer in others
            if waits and route.prefer == record.place:
                waits = self._takeover.is_worth_waiting_for(lease.job_id, record)
        else:
            waits = bool(others - set(route.avoid))
        if waits:
            self._ledger.release(lease.job_id, lease.token, record)
            raise NotNow(_PASS_SECONDS)

    def after_refusal(self, order: Order, error: InvalidWorkflowError) -> InvalidWorkflowError:
        """The error with what is missing, of a job that no server can run.

        Raises:
            NotNow: another one can.
        """
        wanted = self._wanted(order)
        try:
            way = self._router.after_refusal(wanted)
            if way is None:
                return self._router.explained(wanted, error)
        except (BrokerUnavailableError, BrokerFullError) as unknown:
            # Perhaps another one can: for good it fails only if that is known.
            logger.warning("where it could go is not known: %s", unknown)
            way = Later(REDIS_PAUSE)
        except Exception:
            logger.exception("where it could go cannot be told")
            return error
        match way:
            case Later(seconds):
                logger.info("waits for servers that may join")
                raise NotNow(seconds)
            case lane:
                logger.info("waits for another server (lane %s)", lane.id)
                raise NotNow(0.0, lane=lane)

    def is_elsewhere(self, order: Order) -> bool:
        """Whether a server beside this one could run a job, as far as is known."""
        try:
            return bool(self._others() - self._router.unfit(self._wanted(order)))
        except JobError:
            return False
        except Exception:
            logger.exception("cannot be judged")
            return False

    def wish(self, where: Where, due: float) -> Route:
        """Where an attempt is to run that is due then, by the ledger's clock."""
        match where:
            case Where.HERE:
                return preferring(self._place, due)
            case Where.ELSEWHERE:
                return Route(avoid=(self._place,), until=due + _AVOID_SECONDS)
            case Where.ANYWHERE:
                return Route()

    def _wanted(self, order: Order) -> Wanted:
        """A job as its way depends on it."""

        def prepared(nodes: Mapping[str, Any]) -> Workflow:
            return prepare(
                *(order.request, order.job_id, order.enqueued_at, lambda: nodes),
                max_bytes=self._limits.workflow_max_bytes,
                nodes_allowed=self._limits.nodes,
            )

        return Wanted(
            prepared,
            is_sound=lambda: is_sound(order.request.workflow, self._limits.workflow_max_bytes),
            placed=order.request.inputs,
            in_lane=order.in_lane,
            unable=order.unable,
            came_again=order.redelivered,
        )

    def _others(self) -> frozenset[str]:
        return self._ledger.live_places() - {self._place}

    def _is_meant_for_others(self, route: Route) -> bool:
        return self._place in route.avoid or route.prefer not in (None, self._place)


def preferring(place: str, due: float) -> Route:
    """The wish that a job, due then by the ledger's clock, goes on at a place if that is there."""
    return Route(prefer=place, until=due + _PREFER_SECONDS)
