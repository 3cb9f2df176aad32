"""What runs the attempts at a worker's jobs."""

from settings import Settings
from workers.bootstrap.clients import web
from workers.bootstrap.outside import Outside
from workers.bootstrap.taking import Taking
from workers.execution import Executor
from workers.execution.control import unshared
from workers.execution.diagnosis import Diagnosis
from workers.execution.manifests import Manifests
from workers.execution.node_policy import NodePolicy
from workers.execution.output_bounds import MostOutput
from workers.execution.prompts import Prompts
from workers.execution.removal import Removal
from workers.execution.staging import Staging
from workers.execution.stopping import Stopping
from workers.execution.storing import Storing
from workers.inputs import Inputs, Sources
from workers.lifecycle.pinned import Pinned
from workers.observing import Observe
from workers.storage import ObjectStore


def executing(
    settings: Settings,
    worker: str,
    outside: Outside,
    taking: Taking,
    *,
    pinned: Pinned | None,
    removal: Removal,
    nodes: NodePolicy,
    observe: Observe,
) -> Executor:
    """Put it together for the worker with this name.

    Args:
        settings: of the worker.
        worker: its name.
        outside: what it works with.
        taking: decides which jobs these are.
        pinned: the lease on its server; without one others may drive it, too.
        removal: takes back what came to nothing.
        nodes: which classes a workflow may use.
        observe: is told what happens.
    """
    manifests = Manifests(
        outside.store,
        outside.ledger,
        taking.keeper,
        takes_conditions=outside.conditions.are_taken,
    )
    diagnosis = Diagnosis(outside.comfyui, outside.notifications, outside.circuit.suspect)
    return Executor(
        staging=Staging(
            inputs=Inputs(
                comfyui=outside.comfyui,
                sources=_sources(settings, outside.store),
                max_bytes=settings.inputs_max_bytes,
                max_total_bytes=settings.inputs_max_total_bytes,
                max_count=settings.inputs_max_count,
            ),
            refuse_parts=taking.router.refuse_parts,
            object_info=taking.survey.object_info,
            workflow_max_bytes=settings.workflow_max_bytes,
            nodes=nodes,
        ),
        prompts=Prompts(
            comfyui=outside.comfyui,
            notifications=outside.notifications,
            listen_as=outside.listen_as,
            server_at=outside.server_at,
            breaker=outside.circuit,
            keeper=taking.keeper,
            stopping=Stopping(outside.comfyui, taking.keeper, outside.circuit.quarantine),
            diagnosis=diagnosis,
            stall_seconds=settings.stall_seconds,
            confirm_server=pinned.confirm if pinned is not None else unshared,
            observe=observe,
        ),
        storing=Storing(
            store=outside.store,
            uploaders=outside.uploaders,
            removal=removal,
            manifests=manifests,
            keeper=taking.keeper,
            most_output=MostOutput(settings.outputs_max_count, settings.outputs_max_bytes),
            s3_patience_seconds=settings.s3_patience_seconds,
            observe=observe,
        ),
        diagnosis=diagnosis,
        keeper=taking.keeper,
        store=outside.store,
        manifests=manifests,
        removal=removal,
        worker=worker,
        prefix=settings.s3_prefix,
        s3_patience_seconds=settings.s3_patience_seconds,
        observe=observe,
    )


def _sources(settings: Settings, store: ObjectStore) -> Sources:
    """Where inputs may come from."""
    stores = {name: store.beside(name) for name in settings.input_buckets}
    asked = web(settings.input_allow_hosts, settings.inputs_timeout_seconds)
    return Sources(stores={**stores, store.bucket: store}, web=asked)
