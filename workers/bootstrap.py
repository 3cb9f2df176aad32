"""The composition root: the one place where clients are made and put together."""

import uuid
from contextlib import ExitStack
from dataclasses import dataclass
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from celery.utils.nodenames import gethostname

from settings import Settings
from workers.comfyui import ComfyUI, Notifications
from workers.execution import Executor
from workers.storage import ObjectStore

# The spine's thread, its uploads and their parts, for each slot.
_CONNECTIONS_PER_SLOT = 4


@dataclass(frozen=True)
class Parts:
    """What a worker process holds open."""

    comfyui: ComfyUI
    notifications: Notifications
    store: ObjectStore
    executor: Executor

    def close(self) -> None:
        """Close everything, the listener first."""
        with ExitStack() as closing:
            closing.callback(self.store.close)
            closing.callback(self.comfyui.close)
            closing.callback(self.notifications.stop)


def node_name(settings: Settings) -> str:
    """The worker's name: unique where each worker on a host has a server of its own."""
    instance = urlsplit(settings.comfyui_url)
    place = f"{instance.hostname}-{instance.port or instance.scheme}{instance.path}"
    return f"{place.replace('/', '-')}@{gethostname()}"


def assemble(settings: Settings, worker: str) -> Parts:
    """Make the clients and the executor of a worker; the websocket is not started yet."""
    connections = settings.worker_slots * _CONNECTIONS_PER_SLOT
    comfyui = comfyui_client(settings, connections)
    notifications = Notifications(
        settings.comfyui_url,
        # Of two sockets with one client id the older one hears nothing, even when the newer one
        # is gone: a worker started again must not meet what is left of the one before.
        client_id=f"{worker}-{uuid.uuid4().hex[:8]}",
        headers=comfyui.headers,
        timeout=settings.comfyui_connect_timeout_seconds,
    )
    store = object_store(settings, connections)
    executor = Executor(
        comfyui=comfyui,
        notifications=notifications,
        store=store,
        worker=worker,
        prefix=settings.s3_prefix,
        workflow_max_bytes=settings.workflow_max_bytes,
        inputs_max_bytes=settings.inputs_max_bytes,
    )
    return Parts(comfyui, notifications, store, executor)


def comfyui_client(settings: Settings, connections: int = 4) -> ComfyUI:
    """A client of the worker's ComfyUI server."""
    headers = settings.comfyui_headers
    return ComfyUI(
        settings.comfyui_url,
        headers={name: value.get_secret_value() for name, value in headers.items()},
        connect_timeout=settings.comfyui_connect_timeout_seconds,
        read_timeout=settings.comfyui_read_timeout_seconds,
        connections=connections,
    )


def object_store(settings: Settings, connections: int = 4) -> ObjectStore:
    """A client of the bucket; credentials and region come from boto3's own chain."""
    client = boto3.client(
        "s3",
        endpoint_url=settings.s3_endpoint_url,
        config=Config(
            signature_version="s3v4",
            connect_timeout=5,
            read_timeout=60,
            retries={"mode": "standard", "max_attempts": 5},
            max_pool_connections=connections,
            tcp_keepalive=True,
            # Stores other than AWS know only the checksums that a request needs.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            # And most are reached by one host name for all buckets.
            s3={"addressing_style": "path" if settings.s3_endpoint_url else "auto"},
        ),
    )
    return ObjectStore(client, settings.s3_bucket)
