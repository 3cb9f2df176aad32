"""Celery's options, derived from the settings by a pure function."""

from typing import Any

from pydantic import SecretStr

from settings import rabbitmq
from settings.model import Settings
from settings.redis_urls import is_sentinel, tls_options

QUEUE = "comfyui"

# Where the broker keeps what workers hold, for each message by its delivery tag.
UNACKED = "comfyfleet:unacked"

# Seconds that a Redis server has to answer; less where others may have left it for another one.
_ANSWER_SECONDS = 30.0
_ANSWER_SECONDS_OF_MASTER = 5.0
# Seconds after which a producer asks a result backend no more that has not answered.
_RESULT_SECONDS = 20.0
# Seconds that a sentinel has to answer.
_SENTINEL_SECONDS = 2.0


def celery_options(settings: Settings) -> dict[str, Any]:
    """Celery's configuration for producers and workers alike.

    A worker started as `celery -A workers worker` needs no flags: pool, slots and prefetch are
    here. Acknowledgement is a property of the task and lives with it.
    """
    broker_url = settings.broker_url.get_secret_value()
    return {
        "broker_url": broker_url,
        "broker_transport_options": {} if settings.on_rabbitmq else _answering(settings),
        "result_backend": settings.result_backend.get_secret_value(),
        "result_backend_transport_options": {
            **_sentinel_options(settings, settings.result_backend),
            # Celery asks twenty times, each of which may wait for an answer as long as below.
            "retry_policy": {"timeout": _RESULT_SECONDS},
        },
        # What Celery reads in a rediss:// URL it does not read in a sentinel:// URL.
        "redis_backend_use_ssl": _tls_beside_url(settings.result_backend.get_secret_value()),
        "result_expires": settings.result_expires_seconds,
        # Packets that vanish must not hold a job for ever.
        "redis_socket_timeout": _ANSWER_SECONDS_OF_MASTER
        if is_sentinel(settings.result_backend.get_secret_value())
        else _ANSWER_SECONDS,
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


def worker_options(settings: Settings) -> dict[str, Any]:
    """Celery's configuration for workers alone, beside that for all.

    Producers that wait for an answer of workers consume, too: they must not look for messages that
    are left behind.
    """
    return {
        **(rabbitmq.worker_options() if settings.on_rabbitmq else _on_redis(settings)),
        # What runs is held over a new connection too, and so counted by it.
        "worker_enable_prefetch_count_reduction": False,
        # A result that cannot be stored is stored later: nobody would render it again for that.
        "result_backend_always_retry": True,
        "result_backend_transport_options": _sentinel_options(settings, settings.result_backend),
    }


def _on_redis(settings: Settings) -> dict[str, Any]:
    return {
        "broker_transport_options": {
            # Seconds without a sign of life, which comes every three, until a message is given to
            # another worker; and between two looks for such messages.
            "visibility_timeout": 15,
            "unacked_restore_interval": 2,
            "unacked_restore_throttle": 1,
            # Of our own: other Celery apps on the server keep theirs for an hour without a sign.
            "unacked_key": UNACKED,
            "unacked_index_key": "comfyfleet:unacked_index",
            **_answering(settings),
        },
    }


def _answering(settings: Settings) -> dict[str, Any]:
    """How long a broker that is a Redis has to answer: one that vanished must hold up nobody."""
    return {
        "socket_timeout": _ANSWER_SECONDS,
        "socket_connect_timeout": 5.0,
        **_sentinel_options(settings, settings.broker_url),
    }


def _sentinel_options(settings: Settings, url: SecretStr) -> dict[str, Any]:
    """What Celery must be told of the sentinels of a URL; empty if it has none."""
    address = url.get_secret_value()
    if not is_sentinel(address):
        return {}
    # Producers on other brokers never load the Redis client.
    from redis.backoff import NoBackoff  # noqa: PLC0415
    from redis.retry import Retry  # noqa: PLC0415

    password = settings.sentinel_password
    credentials = {
        "username": settings.sentinel_username,
        "password": password and password.get_secret_value(),
    }
    tls = tls_options(address)
    return {
        "socket_timeout": _ANSWER_SECONDS_OF_MASTER,
        "socket_connect_timeout": _ANSWER_SECONDS_OF_MASTER,
        "master_name": settings.sentinel_master_name,
        "sentinel_kwargs": {
            "socket_timeout": _SENTINEL_SECONDS,
            "socket_connect_timeout": _SENTINEL_SECONDS,
            # The next one is asked instead.
            "retry": Retry(NoBackoff(), 0),
            **{name: value for name, value in credentials.items() if value},
            **({"ssl": True, **tls} if tls else {}),
        },
    }


def _tls_beside_url(url: str) -> dict[str, Any] | None:
    return (tls_options(url) or None) if is_sentinel(url) else None
