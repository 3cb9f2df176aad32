"""Clients of servers, of the store, of Redis and of the web, as the settings want them."""

import ssl
from collections.abc import Callable, Iterable
from functools import cache

import boto3
import certifi
import redis
from botocore.config import Config
from botocore.handlers import add_expect_header
from redis.backoff import NoBackoff
from redis.retry import Retry

from settings import Settings
from settings.bounds import MOST_SECONDS
from workers.comfyui import ComfyUI
from workers.ledger.connection import connect
from workers.storage import ObjectStore
from workers.storage.seam import translated
from workers.web import OpenHosts, Web


def redis_client(url: str, seconds: float) -> redis.Redis:
    """A client of a Redis server that tries once, and waits so many seconds for each answer."""
    return connect(
        url, socket_timeout=seconds, socket_connect_timeout=seconds, retry=Retry(NoBackoff(), 0)
    )


def comfyui_client(
    settings: Settings,
    url: str | None = None,
    *,
    connections: int = 4,
    most_seconds: float = MOST_SECONDS,
) -> ComfyUI:
    """A client of the worker's ComfyUI server, or of another one of the fleet.

    Args:
        settings: of the worker.
        url: of another server than the worker's.
        connections: that are kept alive.
        most_seconds: to wait for a connection, or the next bytes, whatever the settings say.
    """
    headers = settings.comfyui_headers
    return ComfyUI(
        url or settings.comfyui_url,
        headers={name: value.get_secret_value() for name, value in headers.items()},
        connect_timeout=min(settings.comfyui_connect_timeout_seconds, most_seconds),
        read_timeout=min(settings.comfyui_read_timeout_seconds, most_seconds),
        connections=connections,
    )


def web(opened: Iterable[str], timeout: float) -> Web:
    """The public web and the hosts that are opened beside it; a timeout in seconds for each URL."""
    return Web(opened=OpenHosts.of(opened), timeout=timeout, tls=_believed)


@cache
def _believed() -> ssl.SSLContext:
    # What the system believes, and what comes with the HTTP library where the system has nothing.
    tls = ssl.create_default_context()
    tls.load_verify_locations(certifi.where())
    return tls


def object_store(
    settings: Settings,
    connections: int = 4,
    *,
    patient: bool = True,
    on_denied: Callable[[], object] = lambda: None,
) -> ObjectStore:
    """A client of the bucket; credentials and region come from boto3's own chain.

    Args:
        settings: of the worker.
        connections: that are kept alive.
        patient: whether it waits for long, and tries again.
        on_denied: called whenever the bucket was not there, or not ours to write.

    Raises:
        StorageDeniedError, StorageUnavailableError: what boto3's chain finds is no configuration.
    """
    with translated(settings.s3_bucket):
        client = boto3.client(
            "s3",
            endpoint_url=settings.s3_endpoint_url,
            config=Config(
                signature_version="s3v4",
                connect_timeout=5 if patient else 2,
                read_timeout=30 if patient else 4,
                # Beyond these it is the uploader who has the patience, and can be interrupted.
                retries={"mode": "standard", "max_attempts": 3 if patient else 1},
                max_pool_connections=connections,
                tcp_keepalive=True,
                # Stores other than AWS know only the checksums that a request needs.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                # And most are reached by one host name for all buckets.
                s3={"addressing_style": "path" if settings.s3_endpoint_url else "auto"},
            ),
        )
    # What is sent is not asked for first whether it is welcome: that costs a round trip.
    client.meta.events.unregister("before-call.s3", add_expect_header)
    return ObjectStore(client, settings.s3_bucket, on_denied=on_denied)
