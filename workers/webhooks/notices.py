"""What receivers are told: one notice an event, in the shape of Standard Webhooks."""

import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, cast

from pydantic import ValidationError
from pydantic_core import to_json

from tasks.errors import InvalidRequestError, JobError
from tasks.request import JobRequest, WebhookEvent, WebhookOptions, is_encodable
from tasks.result import Attempt, JobResult
from workers.ledger import Outcome
from workers.ledger.outbox import Notice
from workers.web import UnusableError
from workers.web.target import read_url

# Receivers that take more are rare, and Redis holds all that waits.
MOST_BYTES = 1_000_000

_IDS = uuid.UUID("7c0a2b5e-1d0f-5f6a-8a52-4c3d9f0e6b11")


class Notices:
    """Makes the notices of jobs that name a webhook."""

    def __init__(self, *, signed: bool) -> None:
        """Say whether there is a secret to sign with: nothing is sent unsigned."""
        self._signed = signed

    def check(self, webhook: WebhookOptions | None) -> None:
        """Refuse a webhook to which nothing could be sent.

        Raises:
            InvalidRequestError: there is nothing to sign with, or the URL cannot be used.
        """
        if webhook is None:
            return
        if not self._signed:
            raise InvalidRequestError(
                "argument 'webhook': found one, expected none, as this worker has nothing to sign "
                "it with; set WEBHOOK_SECRET on all workers"
            )
        try:
            read_url(webhook.url)
        except UnusableError as error:
            # Not the URL itself, in which there may be a secret.
            raise InvalidRequestError(f"argument 'webhook.url' {error}") from None

    def of_start(self, job_id: str, request: JobRequest, instance: str) -> Notice | None:
        """What is said of a job whose first attempt begins."""
        told = {"state": "started", "instance": instance}
        return self._notice(job_id, "job.started", request.webhook, request.metadata, told)

    def of_end(
        self,
        job_id: str,
        request: JobRequest,
        outcome: Outcome,
        *,
        error: JobError | None = None,
        attempts: Iterable[Attempt] = (),
        result: JobResult | None = None,
    ) -> Notice | None:
        """What is said of a job that has ended; None if nobody is to be told."""
        told: dict[str, Any] = {"state": outcome}
        if result is not None:
            told["result"] = result.model_dump(mode="json")
        if error is not None:
            told["error"] = _told(error, attempts)
        event = cast("WebhookEvent", f"job.{outcome}")
        return self._notice(job_id, event, request.webhook, request.metadata, told)

    def of_refusal(
        self, job_id: str, arguments: Mapping[str, Any], error: JobError
    ) -> Notice | None:
        """What is said of a request that was refused: its webhook may be right all the same."""
        try:
            webhook = WebhookOptions.model_validate(arguments.get("webhook"))
            self.check(webhook)
        except (ValidationError, InvalidRequestError):
            return None
        told = {"state": "failed", "error": _told(error, ())}
        metadata = _strings(arguments.get("metadata"))
        # The id may come again with a better request, whose end is another event.
        refused = f" refused: {_encodable(error.message)}"
        return self._notice(job_id, "job.failed", webhook, metadata, told, distinct=refused)

    def _notice(
        self,
        job_id: str,
        event: WebhookEvent,
        webhook: WebhookOptions | None,
        metadata: Mapping[str, str],
        told: Mapping[str, Any],
        *,
        distinct: str = "",
    ) -> Notice | None:
        if webhook is None or event not in webhook.events or not self._signed:
            return None
        try:
            target = read_url(webhook.url)
        except UnusableError:
            # The job fails of that, unless it was not even looked at.
            return None
        origin = target.url.removesuffix(target.path)
        data = {"job_id": job_id, **told, "metadata": metadata}
        body = _body(event, data)
        if len(body) > MOST_BYTES:
            body = _body(event, _short(data))
        notice_id = f"msg_{uuid.uuid5(_IDS, f'{event} {job_id}{distinct}').hex}"
        return Notice(notice_id, job_id, event, origin, webhook.url, body.decode())


def _body(event: str, data: Mapping[str, Any]) -> bytes:
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    # What nodes show may be no number, which JSON does not know.
    return to_json({"type": event, "timestamp": now, "data": data}, inf_nan_mode="null")


def _short(data: Mapping[str, Any]) -> dict[str, Any]:
    """What is left of too much: the manifest has all of it."""
    kept = {name: value for name, value in data.items() if name != "metadata"}
    if "result" in kept:
        names = ("job_id", "prompt_id", "instance", "worker", "manifest", "timings")
        kept["result"] = {name: kept["result"][name] for name in names}
        kept["result"]["timings"] = {**kept["result"]["timings"], "nodes": {}}
    if "error" in kept:
        kept["error"] = {name: kept["error"][name] for name in ("type", "message")}
    return {**kept, "truncated": True}


def _told(error: JobError, attempts: Iterable[Attempt]) -> dict[str, Any]:
    dumped = [attempt.model_dump(mode="json") for attempt in attempts]
    for attempt in dumped:
        attempt["error"] = attempt["error"] and _encodable(attempt["error"])
    return {
        "type": type(error).__name__,
        "message": _encodable(error.message),
        "attempts": dumped,
    }


def _encodable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _strings(value: Any) -> dict[str, str]:
    """The metadata of a request that may be of any form."""
    pairs = value.items() if isinstance(value, Mapping) else ()
    return {k: v for k, v in pairs if _is_text(k) and _is_text(v)}


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and is_encodable(value)
