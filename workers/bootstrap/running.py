"""What runs a worker's jobs, and sends their webhooks."""

from dataclasses import dataclass

from settings import Settings
from settings.secrets import webhook_keys
from workers.bootstrap.clients import web
from workers.bootstrap.executing import executing
from workers.bootstrap.outside import Outside
from workers.bootstrap.taking import Taking
from workers.execution import (
    Attempts,
    Custody,
    Endings,
    Handover,
    Limits,
    Placement,
    Retries,
    Takeover,
)
from workers.execution.node_policy import NodePolicy
from workers.execution.removal import Removal
from workers.lifecycle.pinned import Pinned
from workers.observing import Observe
from workers.webhooks import Courier, Notices, Webhooks

# Seconds for a receiver to answer a webhook.
_WEBHOOK_SECONDS = 10.0


@dataclass(frozen=True)
class Running:
    """What has a worker's jobs while they run, and after.

    Attributes:
        custody: runs one.
        courier: sends webhooks of those that ended.
    """

    custody: Custody
    courier: Courier


def running(
    settings: Settings,
    worker: str,
    outside: Outside,
    taking: Taking,
    *,
    pinned: Pinned | None,
    observe: Observe,
) -> Running:
    """Put it together for the worker with this name.

    Args:
        settings: of the worker.
        worker: its name.
        outside: what it works with.
        taking: decides which jobs these are.
        pinned: the lease on its server; without one others may drive it, too.
        observe: is told what happens.
    """
    removal = Removal(outside.store, settings.s3_patience_seconds)
    nodes = NodePolicy(settings.allowed_nodes, settings.denied_nodes)
    executor = executing(
        settings,
        worker,
        outside,
        taking,
        pinned=pinned,
        removal=removal,
        nodes=nodes,
        observe=observe,
    )
    courier = Courier(
        outside.ledger.outbox,
        web(settings.webhook_allow_hosts, _WEBHOOK_SECONDS),
        webhook_keys(settings.webhook_secret),
        observe=observe,
    )
    webhooks = Webhooks(
        Notices(signed=bool(settings.webhook_secret)), outside.ledger.outbox, courier.nudge
    )
    takeover = Takeover(
        ledger=outside.ledger,
        comfyui=outside.comfyui,
        server_at=outside.server_at,
        place=outside.place,
    )
    limits = Limits(
        *(settings.max_attempts, settings.max_crashes, settings.workflow_max_bytes), nodes=nodes
    )
    placement = Placement(
        ledger=outside.ledger,
        router=taking.router,
        takeover=takeover,
        place=outside.place.key,
        limits=limits,
    )
    endings = Endings(
        ledger=outside.ledger,
        takeover=takeover,
        removal=removal,
        webhooks=webhooks,
        observe=observe,
    )
    custody = Custody(
        ledger=outside.ledger,
        keeper=taking.keeper,
        executor=executor,
        takes_jobs=taking.takes_jobs,
        placement=placement,
        attempts=Attempts(
            ledger=outside.ledger,
            takeover=takeover,
            place=outside.place,
            client_id=outside.notifications.client_id,
        ),
        retries=Retries(
            ledger=outside.ledger,
            placement=placement,
            takeover=takeover,
            comfyui=outside.comfyui,
            limits=limits,
            endings=endings,
            observe=observe,
        ),
        handover=Handover(ledger=outside.ledger, comfyui=outside.comfyui, place=outside.place.key),
        webhooks=webhooks,
        endings=endings,
        observe=observe,
    )
    return Running(custody, courier)
