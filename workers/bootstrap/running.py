"""What runs a worker's jobs, and sends their webhooks."""

from dataclasses import dataclass

from settings import Settings
from settings.secrets import webhook_keys
from workers.bootstrap.clients import web
from workers.bootstrap.outside import Outside
from workers.bootstrap.taking import Taking
from workers.execution import (
    Attempts,
    Custody,
    Endings,
    Executor,
    Handover,
    Limits,
    Placement,
    Retries,
    Takeover,
)
from workers.execution.control import unshared
from workers.execution.manifests import Manifests
from workers.execution.node_policy import NodePolicy
from workers.execution.output_bounds import MostOutput
from workers.execution.removal import Removal
from workers.inputs import Inputs, Sources
from workers.lifecycle.pinned import Pinned
from workers.observing import Observe
from workers.storage import ObjectStore
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
    executor = Executor(
        comfyui=outside.comfyui,
        notifications=outside.notifications,
        listen_as=outside.listen_as,
        server_at=outside.server_at,
        breaker=outside.circuit,
        confirm_server=pinned.confirm if pinned is not None else unshared,
        keeper=taking.keeper,
        store=outside.store,
        manifests=Manifests(
            outside.store,
            outside.ledger,
            taking.keeper,
            takes_conditions=outside.conditions.are_taken,
        ),
        removal=removal,
        inputs=Inputs(
            comfyui=outside.comfyui,
            sources=_sources(settings, outside.store),
            max_bytes=settings.inputs_max_bytes,
            max_total_bytes=settings.inputs_max_total_bytes,
            max_count=settings.inputs_max_count,
        ),
        refuse_parts=taking.router.refuse_parts,
        object_info=taking.survey.object_info,
        uploaders=outside.uploaders,
        worker=worker,
        prefix=settings.s3_prefix,
        workflow_max_bytes=settings.workflow_max_bytes,
        nodes=nodes,
        most_output=MostOutput(settings.outputs_max_count, settings.outputs_max_bytes),
        stall_seconds=settings.stall_seconds,
        s3_patience_seconds=settings.s3_patience_seconds,
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


def _sources(settings: Settings, store: ObjectStore) -> Sources:
    """Where inputs may come from."""
    stores = {name: store.beside(name) for name in settings.input_buckets}
    asked = web(settings.input_allow_hosts, settings.inputs_timeout_seconds)
    return Sources(stores={**stores, store.bucket: store}, web=asked)
