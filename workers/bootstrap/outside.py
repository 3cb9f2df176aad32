"""What a worker works with: its server, the store, what workers agree on, and who watches these."""

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from settings import Settings
from workers.bootstrap.clients import comfyui_client, object_store
from workers.checks.storage import judge_date, judge_error
from workers.comfyui import ComfyUI, Notifications
from workers.execution.place import Place
from workers.ledger import Ledger
from workers.ledger.servers import Servers
from workers.lifecycle.circuit import Circuit
from workers.lifecycle.store_watch import StoreWatch
from workers.storage import ObjectStore
from workers.storage.probe import Conditions

# Files that are stored at the same time, for each slot.
_UPLOADS_PER_SLOT = 2
# The spine's thread, its uploads and their parts, for each slot.
_CONNECTIONS_PER_SLOT = 4


@dataclass(frozen=True)
class Outside:
    """The clients of a worker, which all its parts share.

    Attributes:
        place: of its server, as the fleet calls it.
        comfyui: its server.
        server_at: makes a client of another one.
        notifications: what its server says by itself.
        listen_as: makes a listener to what is said to another client.
        circuit: whether its server can be used.
        store: where files go.
        conditions: whether the store takes conditions.
        store_watch: whether files can go there.
        uploaders: threads for files on their way.
        ledger: what the fleet knows of jobs.
        servers: what it knows of servers.
    """

    place: Place
    comfyui: ComfyUI
    server_at: Callable[[str], ComfyUI]
    notifications: Notifications
    listen_as: Callable[[str], Notifications]
    circuit: Circuit
    store: ObjectStore
    conditions: Conditions
    store_watch: StoreWatch
    uploaders: ThreadPoolExecutor
    ledger: Ledger
    servers: Servers


def outside(settings: Settings, worker: str) -> Outside:
    """Make the clients of the worker with this name; nothing is opened or started yet."""
    connections = settings.worker_slots * _CONNECTIONS_PER_SLOT
    comfyui = comfyui_client(settings, connections=connections)

    def listener(client_id: str, **callbacks: Callable[[], None]) -> Notifications:
        return Notifications(
            settings.comfyui_url,
            client_id,
            headers=comfyui.headers,
            timeout=settings.comfyui_connect_timeout_seconds,
            **callbacks,
        )

    def listen_as(client_id: str) -> Notifications:
        # What is heard of an adopted prompt is a sign of life for those behind it.
        return listener(client_id, on_heard=notifications.hear)

    circuit = Circuit(comfyui)
    # Of two sockets with one client id the older one hears nothing, even when the newer one is
    # gone: a worker started again must not meet what is left of the one before.
    notifications = listener(f"{worker}-{uuid.uuid4().hex[:8]}", on_failure=circuit.suspect)
    store, conditions, store_watch = _watched_store(settings, connections)
    return Outside(
        place=Place.of(settings.comfyui_url),
        comfyui=comfyui,
        server_at=lambda url: comfyui_client(settings, url),
        notifications=notifications,
        listen_as=listen_as,
        circuit=circuit,
        store=store,
        conditions=conditions,
        store_watch=store_watch,
        uploaders=ThreadPoolExecutor(settings.worker_slots * _UPLOADS_PER_SLOT, "upload"),
        ledger=Ledger(settings.ledger_url, keep_seconds=settings.result_expires_seconds),
        servers=Servers(settings.ledger_url),
    )


def _watched_store(
    settings: Settings, connections: int
) -> tuple[ObjectStore, Conditions, StoreWatch]:
    def on_denied() -> None:
        watch.suspect()

    store = object_store(settings, connections, on_denied=on_denied)
    # Over the same connections, and nobody is told of what the watch itself is denied.
    conditions = Conditions(store.beside(store.bucket), settings.s3_prefix)
    watch = StoreWatch(
        lambda: judge_date(conditions.look().date),
        lambda error: judge_error(error, store, settings.s3_endpoint_url),
    )
    return store, conditions, watch
