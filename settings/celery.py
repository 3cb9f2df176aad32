"""Celery's options, derived from the settings by a pure function."""

from typing import Any

from settings import rabbitmq
from settings.model import Settings

QUEUE = "comfyui"


def celery_options(settings: Settings) -> dict[str, Any]:
    """Celery's configuration for producers and workers alike.

    A worker started as `celery -A workers worker` needs no flags: pool, slots and prefetch are
    here. Acknowledgement is a property of the task and lives with it.
    """
    broker_url = settings.broker_url.get_secret_value()
    return {
        "broker_url": broker_url,
        "result_backend": settings.result_backend.get_secret_value(),
        "result_expires": settings.result_expires_seconds,
        # Packets that vanish must not hold a job for ever.
        "redis_socket_timeout": 30.0,
        "redis_socket_connect_timeout": 5.0,
        # JSON only, in both directions: a pickle in a message would run code.
        "accept_content": ["json"],
        "task_serializer": "json",
        "result_serializer": "json",
        "result_accept_content": ["json"],
        "task_default_queue": QUEUE,
        # A job waits on the network nearly all the time: threads, one a slot.
        "worker_pool": "threads",
        "worker_concurrency": settings.worker_slots,
        # What a worker holds beyond its slots no idle worker can take.
        "worker_prefetch_multiplier": 1,
        "broker_connection_retry_on_startup": True,
        "enable_utc": True,
        **(rabbitmq.common_options(broker_url) if settings.on_rabbitmq else {}),
    }


def worker_options(*, on_rabbitmq: bool = False) -> dict[str, Any]:
    """Celery's configuration for workers alone, beside that for all.

    Producers that wait for an answer of workers consume, too: they must not look for messages that
    are left behind.
    """
    return {
        **(rabbitmq.worker_options() if on_rabbitmq else _on_redis()),
        # What runs is held over a new connection too, and so counted by it.
        "worker_enable_prefetch_count_reduction": False,
        # A result that cannot be stored is stored later: nobody would render it again for that.
        "result_backend_always_retry": True,
    }


def _on_redis() -> dict[str, Any]:
    return {
        "broker_transport_options": {
            # Seconds without a sign of life, which comes every three, until a message is given to
            # another worker; and between two looks for such messages.
            "visibility_timeout": 15,
            "unacked_restore_interval": 2,
            "unacked_restore_throttle": 1,
            # Of our own: other Celery apps on the server keep theirs for an hour without a sign.
            "unacked_key": "comfyfleet:unacked",
            "unacked_index_key": "comfyfleet:unacked_index",
            # A broker that vanished must not hold the consumer for ever.
            "socket_timeout": 30.0,
            "socket_connect_timeout": 5.0,
        },
    }
