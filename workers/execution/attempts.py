"""One attempt after another: what is kept of those before, and what the next one does."""

import logging

from tasks.errors import WorkerDiedError
from tasks.result import Attempt
from workers.execution.control import LeaseLost
from workers.execution.job import Job, Start, prompt_id
from workers.execution.keeper import Lease
from workers.execution.order import Order
from workers.execution.place import Place
from workers.execution.placement import preferring
from workers.execution.takeover import Takeover
from workers.ledger import Claimed, Ledger, Record

logger = logging.getLogger(__name__)


class Attempts:
    """Begins attempts on this worker's server where those before have ended. Thread-safe."""

    def __init__(self, *, ledger: Ledger, takeover: Takeover, place: Place, client_id: str) -> None:
        """Take what it works with.

        Args:
            ledger: has the records.
            takeover: knows what became of the prompts of earlier attempts.
            place: of this worker's server.
            client_id: of this worker's websocket.
        """
        self._ledger = ledger
        self._takeover = takeover
        self._here = {"place": place.key, "instance": place.url, "client_id": client_id}

    def first(self, order: Order, folder: str) -> Record:
        """The record of a job that nobody has tried, whose objects go into this folder."""
        return Record.model_validate(
            {**self._here, "folder": folder, "enqueued_at": order.enqueued_at}
        )

    def after_death(self, job_id: str, claim: Claimed, lease: Lease) -> Record:
        """The record after the attempt that ended with its worker."""
        record = claim.record
        died = WorkerDiedError("its worker vanished")
        logger.warning("attempt %d on %s ended with its worker", record.number, record.instance)
        attempt = Attempt(
            number=record.number,
            instance=record.instance,
            prompt_id=prompt_id(job_id, record.prompt),
            error=f"{type(died).__name__}: {died.message}",
            seconds=round(max(0.0, lease.now() - record.since), 3),
        )
        # Of one that said it was leaving nobody is to blame, nor what had only waited.
        guilty = not claim.owner_left and self._takeover.had_begun(job_id, record)
        changes = {
            "attempts": (*record.attempts, attempt),
            "crashes": record.crashes + guilty,
            # If the server goes on, or has a worker again, it is the best place to go on.
            "route": preferring(record.place, lease.now()),
        }
        return record.model_copy(update=changes)

    def next(self, order: Order, lease: Lease, record: Record) -> tuple[Job, Record]:
        """What is to be done, now that it is known what became of the prompt before.

        Raises:
            LeaseLost: nothing, as somebody else has the job.
            JobError: it cannot be known now.
        """
        start = self._takeover.of(order.job_id, record)
        if record.accused:
            # A server that still has the prompt did not go down with it.
            innocent = start is not Start.SUBMIT
            crashes = record.crashes - innocent
            record = record.model_copy(update={"accused": False, "crashes": crashes})
        if start is Start.SUBMIT:
            changes = {"prompt": record.number, "since": lease.now(), "spent": False}
            record = record.model_copy(update={**self._here, **changes})
        if not self._ledger.save(lease.job_id, lease.token, record):
            raise LeaseLost("somebody else has the job")
        return job_of(order, lease, record, start), record


def job_of(order: Order, lease: Lease, record: Record, start: Start = Start.SUBMIT) -> Job:
    """The attempt at which a job is by its record."""
    return Job(
        id=order.job_id,
        request=order.request,
        instance=record.instance,
        client_id=record.client_id,
        folder=record.folder,
        number=record.number,
        prompt=record.prompt,
        start=start,
        age=0.0 if start is Start.SUBMIT else max(0.0, lease.now() - record.since),
        earlier=record.attempts,
        bypass=record.bypass,
        queued_seconds=order.queued_seconds,
        enqueued_at=record.enqueued_at,
    )
