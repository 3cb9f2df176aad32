"""Celery's consumer and request, made safe against messages of any form and a broker that goes."""

import functools
import gc
import logging
import time
from collections.abc import Callable
from typing import Any

from amqp.exceptions import IrrecoverableChannelError, IrrecoverableConnectionError
from celery.exceptions import Ignore, InvalidTaskError
from celery.worker import state
from celery.worker.consumer import Consumer as CeleryConsumer
from celery.worker.consumer import consumer as celery_consumer
from celery.worker.request import Request as CeleryRequest

from tasks.errors import InvalidRequestError
from tasks.signing import HEADER, is_signed
from workers import timeline
from workers.broker.envelopes import MALFORMED
from workers.broker.transport import LANE, UNABLE
from workers.logs.context import about
from workers.routing.lanes import Lane

logger = logging.getLogger(__name__)

_NOT_SHOWN = "(not shown)"
_REPRS = ("argsrepr", "kwargsrepr")

# What Celery logs of a message that it cannot read.
celery_consumer.dump_body = lambda _message, _body: _NOT_SHOWN

# The message header in which a request keeps when it reached this worker (Unix time, seconds).
RECEIVED_AT = "received_at"

# Where a request keeps whether its message has a valid signature; no header has a say in that.
IS_SIGNED = "comfyfleet_is_signed"

# Of a body with more characters nothing is kept after its job.
_LARGE_BODY = 1_000_000

# Seconds until it is looked again whether there is a connection.
_RECONNECTING_SECONDS = 1.0

# Seconds until it is tried again what the broker has refused.
_REFUSED_SECONDS = 2.0

# What is sent when a job has ended, which stands in the body of its message.
_FOLLOWERS = ("callbacks", "errbacks", "chain", "chord")

# Fields of a message, beside its id, that Celery trusts to be of these types.
_FIELDS = {
    "retries": int,
    "headers": dict,
    "shadow": str,
    "args": list,
    "kwargs": dict,
    "callbacks": list,
    "errbacks": list,
    "chain": list,
    "chord": dict,
}


class ComesAgain(Ignore):  # type: ignore[misc]  # celery has no types for it
    """The job's message is to come again, to whichever worker, after so many seconds."""

    def __init__(self, seconds: float, lane: Lane | None = None) -> None:
        """Say when; at once means to the head of the queue, or to a lane of it."""
        super().__init__(f"again in {seconds:.1f} s")
        self.seconds = seconds
        self.lane = lane


class Revoked(Ignore):  # type: ignore[misc]  # celery has no types for it
    """The job was cancelled, and has ended."""

    def __init__(self, reason: str, *, expired: bool) -> None:
        """Say why: somebody asked for it, or it was too late to begin."""
        super().__init__(reason)
        self.expired = expired


class Request(CeleryRequest):  # type: ignore[misc]  # celery has no types for it
    """Celery's request of a job, which also knows when the message came."""

    def __init__(self, message: Any, **options: Any) -> None:
        """Read a message.

        Raises:
            InvalidTaskError: a field of it is of the wrong type.
        """
        super().__init__(message, **options)
        args, kwargs, embed = message.payload if not options.get("decoded") else ([], {}, {})
        # A body may lack these, and only bodies are signed.
        for name in _FOLLOWERS:
            self._request_dict.pop(name, None)
        for name, kind in _FIELDS.items():
            value = self._request_dict.get(name, (embed or {}).get(name))
            if value is not None:
                _check(name, value, kind)
        # These two are in the body, and may not be missing.
        _check("args", args, list)
        _check("kwargs", kwargs, dict)
        # Where the older protocol has it in the body.
        message.job_id = self.id
        self._request_dict[RECEIVED_AT] = time.time()
        delivery_info = message.delivery_info or {}
        self._request_dict |= {name: delivery_info.get(name) for name in (LANE, UNABLE)}
        self._request_dict[IS_SIGNED] = is_signed(
            *(self.task.message_secrets, self.id, message.body, message.headers.get(HEADER))
        )
        self._argsrepr = self._request_dict["argsrepr"] = _NOT_SHOWN
        self._kwargsrepr = self._request_dict["kwargsrepr"] = _NOT_SHOWN

    def info(self, safe: bool = False) -> dict[str, Any]:  # noqa: ARG002  # Celery's signature
        """Celery's hook for `inspect`, whatever it was asked for: without arguments."""
        return dict(super().info(safe=True))

    def on_accepted(self, *args: Any, **kwargs: Any) -> None:
        """Celery's hook for a job that begins."""
        self._message.begin()
        super().on_accepted(*args, **kwargs)

    def on_failure(self, exc_info: Any, *args: Any, **kwargs: Any) -> None:
        """Celery's hook for a task that raised."""
        match getattr(exc_info.exception, "exc", exc_info.exception):
            case ComesAgain(seconds=seconds, lane=lane):
                state.task_ready(self)
                if seconds > 0:
                    self._message.postpone(self, seconds)
                else:
                    if lane is not None:
                        self._message.channel.send_to(self._message.delivery_tag, lane)
                    self.reject(requeue=True)
            case Revoked() as revoked:
                terminated = not revoked.expired
                signal = "SIGTERM" if terminated else None
                reason = "expired" if revoked.expired else "terminated"
                self._announce_revoked(reason, terminated, signal, revoked.expired)
            case _:
                super().on_failure(exc_info, *args, **kwargs)

    def revoked(self) -> bool:
        """Celery's hook: the ledger knows better which job is not to be begun, and which has been.

        Only what has been revoked by a stamped header, of which the ledger knows nothing, is
        Celery's to tell.
        """
        if self.stamped_headers and state.revoked_stamps:
            return bool(super().revoked())
        return bool(self._already_revoked)

    def terminate(self, pool: Any, signal: Any = None) -> None:
        """Celery's hook for `revoke(terminate=True)`: the job's own thread ends it."""


class Consumer(CeleryConsumer):  # type: ignore[misc]  # celery has no types for it
    """Celery's consumer, which also records the failure of messages that it drops."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Make the consumer; it serves all the worker's connections, one after the other."""
        # Messages of jobs that have begun here, and those of them that wait to be given back.
        self.unsettled: set[Any] = set()
        self.postponed: set[Any] = set()
        super().__init__(*args, **kwargs)

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], None]:
        """Celery's hook: the function that takes each message."""
        handle = super().create_task_handler(*args, **kwargs)

        def on_task_received(message: Any) -> None:
            # What producers send for logs and events shows input files and whole workflows.
            hidden = {name: _NOT_SHOWN for name in _REPRS if name in (message.headers or {})}
            if hidden:
                message.headers = {**message.headers, **hidden}
            message.job_id = str((message.headers or {}).get("id"))
            message.ack_log_error = self._settling(message, message.ack_log_error)
            message.reject_log_error = self._settling(message, message.reject_log_error)
            message.begin = functools.partial(self.unsettled.add, message)
            message.postpone = self._postpone
            if not _has_usable_id(message):
                logger.error("a message has no usable task id and is dropped")
                message.ack_log_error(logger, self.connection_errors)
                return
            with about(job_id=message.job_id):
                try:
                    handle(message)
                except MALFORMED as error:
                    logger.exception("a message cannot be read as a task")
                    self.on_invalid_task(None, message, InvalidTaskError(repr(error)))

        return on_task_received

    def _settling(self, message: Any, settle: Callable[..., None]) -> Callable[..., None]:
        def settling(*args: Any, **kwargs: Any) -> None:
            try:
                settle(*args, **kwargs)
            except AttributeError:
                # The channel was closed when the broker went; the message comes again.
                with about(job_id=message.job_id):
                    logger.warning("a message outlived its connection and could not be settled")
            finally:
                timeline.mark(message.job_id, "acknowledged")
                self.controller.keeper.settle(message.job_id)
                self.unsettled.discard(message)
                if len(message.body or "") > _LARGE_BODY:
                    # The collector counts objects, not their size, and a failure has cycles.
                    gc.collect()

        return settling

    def _postpone(self, request: Request, seconds: float) -> None:
        """Keep a message, and no slot for it, until it goes back to the queue."""
        message = request.message

        def give_back() -> None:
            if self.task_consumer is None:
                # There is no connection to give it back over.
                self.timer.call_after(_RECONNECTING_SECONDS, give_back)
                return
            if message not in self.postponed:
                return
            self.postponed.discard(message)
            self.qos.decrement_eventually()
            request.reject(requeue=True)

        def wait() -> None:
            if message not in self.unsettled:
                # Its broker has given it back.
                return
            self.postponed.add(message)
            self.controller.keeper.settle(request.id)
            self.qos.increment_eventually()
            self.timer.call_after(seconds, give_back)

        self.call_soon(wait)

    def call_soon_ack(self, settle: Any, *args: Any, **kwargs: Any) -> Any:
        """Celery's hook for settling a message: at once when the loop that would do it ends."""
        if state.should_stop is None:
            return super().call_soon_ack(settle, *args, **kwargs)
        return settle(*args, **kwargs)

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Celery's hook for a body that is not what its content type says."""
        message.headers = {**(message.headers or {}), "kwargsrepr": _NOT_SHOWN}
        self._fail(message, exc)
        super().on_decode_error(message, exc)

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        """Celery's hook for a message that is none of a task."""
        self._fail(message, exc)
        super().on_invalid_task(body, message, exc)

    def ensure_connected(self, connection: Any) -> Any:
        """Celery's hook: connect, however long the broker is away.

        Celery waits longer each time, up to half a minute, and gives up in the end.
        """
        # A broker that is away is no reason to end this worker, which may have jobs.
        self.controller.pulse.beat()

        def on_error(error: Exception, seconds: float) -> None:
            self.controller.pulse.beat()
            logger.error(
                "no connection to %s: %s; again in %.1f s", connection.as_uri(), error, seconds
            )

        self.first_connection_attempt = False
        return connection.ensure_connection(
            on_error,
            max_retries=None,
            interval_start=0.2,
            interval_step=0.6,
            interval_max=5.0,
            callback=state.maybe_shutdown,
        )

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Celery's hook for a broker that went away while the worker runs.

        Closing the channel would put back what is under way, over the connection that is gone,
        and end the worker by that. The broker gives it back when its time is over.
        """
        for channel in getattr(self.connection.transport, "channels", None) or ():
            channel.do_restore = False
        if self.connection.transport.driver_type != "redis":
            # There messages belong to their connection, and are given back when that ends.
            self.unsettled.clear()
            self.postponed.clear()
        super().on_connection_error_after_connected(exc)
        _pause_after_refusal(exc)

    def on_connection_error_before_connected(self, exc: Exception) -> None:
        """Celery's hook for a broker that takes connections, and refuses what is asked over them.

        Such as one that has too few replicas (NOREPLICAS) or no room on its disk (MISCONF).
        """
        super().on_connection_error_before_connected(exc)
        time.sleep(_RECONNECTING_SECONDS)

    def _fail(self, message: Any, exc: Exception) -> None:
        job_id = (message.headers or {}).get("id")
        if job_id is None:
            return
        error = InvalidRequestError(f"the message cannot be read as a task: {exc}")
        try:
            self.app.backend.mark_as_failure(job_id, error)
        except Exception:
            with about(job_id=job_id):
                logger.exception("its failure could not be stored")


def _pause_after_refusal(exc: Exception) -> None:
    """Wait before it is tried again what RabbitMQ has refused, such as a name that is taken."""
    if not isinstance(exc, IrrecoverableConnectionError | IrrecoverableChannelError):
        return
    until = time.monotonic() + _REFUSED_SECONDS
    while time.monotonic() < until:
        state.maybe_shutdown()
        time.sleep(_RECONNECTING_SECONDS / 10)


def _check(name: str, value: Any, kind: type) -> None:
    if not isinstance(value, kind):
        # Not the value itself: who knows what it holds.
        raise InvalidTaskError(f"{name} is a {type(value).__name__}, expected {kind.__name__}")


def _has_usable_id(message: Any) -> bool:
    headers = message.headers or {}
    if "task" not in headers:
        # Of the older protocol, with the id in its body, or no task at all: Celery tells.
        return True
    job_id = headers.get("id")
    # Half of a character pair, which JSON can name, has no encoding and so no key in a store.
    return (
        isinstance(job_id, str)
        and job_id != ""
        and job_id.encode("utf-8", "replace").decode() == job_id
    )
