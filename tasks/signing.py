"""Jobs that are signed by who enqueues them, so that workers run nobody else's."""

import hmac
from collections.abc import Iterable
from typing import Any

from celery.signals import before_task_publish
from kombu.serialization import dumps

from settings import load

HEADER = "comfyfleet-signature"
_VERSION = "v1"


def signature(secret: str, job_id: str, body: str | bytes) -> str:
    """What proves that somebody who has the secret has enqueued just this under just this id.

    Args:
        secret: the shared one.
        job_id: Celery's task id, without a line break.
        body: of the message, before it is compressed.
    """
    content = body.encode() if isinstance(body, str) else body
    mac = hmac.digest(secret.encode(), f"{job_id}\n".encode() + content, "sha256")
    return f"{_VERSION},{mac.hex()}"


def is_signed(secrets: Iterable[str], job_id: str, body: str | bytes, found: Any) -> bool:
    """Whether a signature that came with a message was made with one of the secrets."""
    # A line break would let a part of the body pass for a part of the id.
    if not isinstance(found, str) or "\n" in job_id:
        return False
    given = found.encode("utf-8", "replace")
    expected = [signature(secret, job_id, body).encode() for secret in secrets]
    return any(hmac.compare_digest(given, one) for one in expected)


def sign_published(body: Any, headers: dict[str, Any], **_: Any) -> None:
    """Sign a job that is about to be sent, if there is a secret: also out of a chain or a group."""
    secrets = load().message_secret
    if secrets:
        # As it will be written: nothing about that is left to chance.
        text = dumps(body, serializer="json")[2]
        headers[HEADER] = signature(secrets[0].get_secret_value(), headers["id"], text)


def sign_tasks(name: str) -> None:
    """Have each message of this task that this process sends signed, whatever app sends it."""
    before_task_publish.connect(sign_published, sender=name, weak=False)


def sign_no_tasks(name: str) -> None:
    """Undo `sign_tasks`, for a process that sends what others tell it to send."""
    before_task_publish.disconnect(sign_published, sender=name, weak=False)
