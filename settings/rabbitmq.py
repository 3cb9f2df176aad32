"""What is particular to RabbitMQ: a queue for each level of priority, and Celery's options."""

from collections.abc import Mapping
from typing import Any

QUEUES: Mapping[str, str] = {
    "urgent": "comfyui.urgent",
    "normal": "comfyui",
    "batch": "comfyui.batch",
}
"""The queue of each level, the most urgent first. They are declared without arguments: producers
that know nothing of us declare them so, and the vhost's default says of which type they are."""

RETURNED = "comfyui.returned"
"""Where a policy may send what RabbitMQ would drop, such as messages that are too old."""

# Seconds after which a peer that shows no sign of life is given up; twice that at the latest.
_HEARTBEAT = 10

_LEAST_OF_URGENT = 7
_LEAST_OF_NORMAL = 4


def level_of(number: int) -> str:
    """The level that a priority stands for: RabbitMQ takes the highest number first."""
    if number >= _LEAST_OF_URGENT:
        return "urgent"
    return "normal" if number >= _LEAST_OF_NORMAL else "batch"


def common_options(url: str) -> dict[str, Any]:
    """Celery's options for RabbitMQ at such a URL, for producers and workers alike."""
    # Without this a certificate is believed whomever it names.
    tls = {"broker_use_ssl": {"server_hostname": None}} if url.startswith("amqps:") else {}
    # What was sent is there: the broker confirms each message before the call returns.
    return {"broker_transport_options": {"confirm_publish": True}, **tls}


def worker_options() -> dict[str, Any]:
    """Celery's options for workers on RabbitMQ, beside those for all."""
    return {
        "broker_heartbeat": _HEARTBEAT,
        # Queues that are of the type "quorum" we use as any other: neither with a prefetch count
        # for the whole channel, nor with Celery's delayed delivery.
        "worker_detect_quorum_queues": False,
        # In this order it is looked into them.
        "task_queues": {
            name: {"exchange": name, "routing_key": name}
            for name in (QUEUES["urgent"], QUEUES["normal"], RETURNED, QUEUES["batch"])
        },
    }
