"""No server idles while this worker holds a job that has not begun."""

import logging
import threading
from typing import TYPE_CHECKING, Any

from celery import bootsteps
from celery.worker.consumer.tasks import Tasks
from redis import Redis

from workers.broker.heartbeat import client_beside
from workers.broker.scripts import CALLS
from workers.broker.transport import Standing
from workers.ledger.servers import NOW

if TYPE_CHECKING:
    from workers.execution.keeper import Keeper
    from workers.routing.router import Router

logger = logging.getLogger(__name__)

# Seconds without a call until it is looked for one that was missed.
_MISSED_SECONDS = 3.0

# Milliseconds that a hungry worker has to take what one worker gives it, before others give too.
_SERVED_MS = 400

# KEYS: the hungry of each queue. ARGV: this channel among them, ms, digests of capabilities that do
# not suffice. 1: one of the others is ours to serve.
_SERVE = f"""
{NOW}
local unable = {{}}
for i = 3, #ARGV do unable[ARGV[i]] = true end
for _, key in ipairs(KEYS) do
  for _, one in ipairs(redis.call('ZRANGE', key, '(' .. now, '+inf', 'BYSCORE')) do
    local other = one ~= ARGV[1] and not unable[string.match(one, ':(.*)$') or '']
    if other and redis.call('SET', key .. ':' .. one, '', 'NX', 'PX', ARGV[2]) then
      return 1
    end
  end
end
return 0
"""


class Sharing(bootsteps.StartStopStep):  # type: ignore[misc]  # celery has no types for it
    """Has a consumer's channel take what its worker wants, and hears the calls of hungry ones.

    What the worker holds is the attribute `keeper` of the worker (Celery's controller), where its
    jobs go the attribute `router`.
    """

    requires = (Tasks,)

    def __init__(self, consumer: Any, **options: Any) -> None:
        """Start nothing yet; a consumer has one of these for all its connections."""
        super().__init__(consumer, **options)
        self._keeper: Keeper = consumer.controller.keeper
        self._router: Router = consumer.controller.router
        # For the loop to ask at once whether more is wanted.
        self._keeper.subscribe(lambda: consumer.call_soon(_nothing))
        self._ended = threading.Event()

    def start(self, consumer: Any) -> None:
        """Celery's hook for each new connection."""
        if consumer.connection.transport.driver_type != "redis":
            return
        channel = consumer.task_consumer.channel
        channel.appetite, channel.slots = self._keeper.appetite, consumer.controller.concurrency
        channel.standing = self._standing
        self._ended = threading.Event()
        threading.Thread(
            target=self._hear, args=(channel, self._ended), name="sharing", daemon=True
        ).start()

    def stop(self, consumer: Any) -> None:
        """Celery's hook for each connection that has ended, and for the worker's end."""
        # At the worker's end others may still take what it has no time for.
        if consumer.blueprint.state == bootsteps.RUN:
            self._ended.set()

    def shutdown(self, consumer: Any) -> None:  # noqa: ARG002  # celery's signature
        """Celery's hook for the worker's end, just before its connection is closed."""
        self._ended.set()

    def _hear(self, channel: Any, ended: threading.Event) -> None:
        failing = False
        while not ended.is_set():
            try:
                with client_beside(channel) as client, client.pubsub() as calls:
                    calls.subscribe(CALLS)
                    while not ended.is_set():
                        self._answer(channel, client)
                        failing = False
                        calls.get_message(ignore_subscribe_messages=True, timeout=_MISSED_SECONDS)
            except Exception as error:  # noqa: BLE001  # a dead thread would be deaf for good
                if not failing and not ended.is_set():
                    logger.warning("calls of idle workers are not heard: %r", error)
                failing = True
                ended.wait(_MISSED_SECONDS)

    def _answer(self, channel: Any, client: Redis) -> None:
        lease, keys = self._keeper.spare, channel.hungry
        if lease is None or not keys:
            return
        given = (channel.among_hungry, _SERVED_MS, *lease.here.unable)
        if client.eval(_SERVE, len(keys), *keys, *given):
            self._keeper.hand_over(lease)

    def _standing(self) -> Standing:
        router = self._router
        return Standing(router.digest, router.models, router.wait_seconds, router.returning_seconds)


def _nothing() -> None:
    pass
