"""Commits: whoever writes a job's manifest first has done the job, and everybody else reads it."""

import json
import logging
from collections.abc import Callable

from tasks.errors import (
    BrokerFullError,
    BrokerUnavailableError,
    JobError,
    StorageUnavailableError,
)
from tasks.result import JobResult
from workers.execution.control import LeaseLost
from workers.execution.keeper import Keeper, Lease
from workers.ledger import Ledger
from workers.ledger.patience import REDIS_PAUSE
from workers.storage import ObjectStore

logger = logging.getLogger(__name__)

_JSON = "application/json"


class Manifests:
    """Writes and reads manifests. Thread-safe.

    A store that takes conditions decides who is first. For any other one the ledger does, and
    keeps what was decided until the job ends: whoever writes it, however late, writes the same.
    """

    def __init__(
        self,
        store: ObjectStore,
        ledger: Ledger,
        keeper: Keeper,
        *,
        takes_conditions: Callable[[], bool],
    ) -> None:
        """Take what it works with; the clients stay their maker's to close.

        Args:
            store: has the manifests.
            ledger: decides where the store cannot.
            keeper: of this worker's leases.
            takes_conditions: whether the store can; raises what the store raises.
        """
        self._store = store
        self._ledger = ledger
        self._keeper = keeper
        self._takes_conditions = takes_conditions

    def commit(self, lease: Lease, result: JobResult) -> JobResult:
        """Write the manifest, once; the result that stands in it is the job's.

        Raises:
            StorageUnavailableError, StorageDeniedError: it may not be written.
            LeaseLost: somebody else has the job.
            Exception: whatever reason the lease's control gives to end.
        """
        key, content = result.manifest.key, result.model_dump_json(indent=1)
        conditional = self._takes_conditions()
        self._keeper.confirm(lease)
        if conditional:
            decided = self._commit_by_store(lease, key, content)
        else:
            decided = self._commit_by_ledger(lease, key, content)
        if decided == content.encode():
            return result
        logger.info("was committed by another attempt")
        return read_manifest(decided)

    def find(self, job_id: str, key: str) -> bytes | None:
        """The manifest of a job that is committed already, whoever did it; None if it is not.

        Raises:
            StorageUnavailableError, StorageDeniedError, BrokerUnavailableError: nobody knows.
        """
        found = self._store.get(key)
        if found is not None or self._takes_conditions():
            return found
        decided = self._ledger.committed(job_id)
        if decided is None:
            return None
        # Whoever was to write it did not, or not yet.
        self._store.replace(key, decided.encode(), _JSON)
        return decided.encode()

    def may_name(self, job_id: str) -> bool:
        """Whether files of the job may be named by a manifest that is still to be written."""
        try:
            return not self._takes_conditions() and self._ledger.committed(job_id) is not None
        except JobError:
            return True

    def _commit_by_store(self, lease: Lease, key: str, content: str) -> bytes:
        with lease.control.sealed():
            if self._store.create(key, content.encode(), _JSON):
                return content.encode()
        found = self._store.get(key)
        if found is None:
            raise StorageUnavailableError(
                f"the store of bucket {self._store.bucket!r} refuses a manifest as a second one, "
                "and does not have the first"
            )
        return found

    def _commit_by_ledger(self, lease: Lease, key: str, content: str) -> bytes:
        # The ledger may have forgotten an earlier one.
        if (found := self._store.get(key)) is not None:
            return found
        decided = self._decide(lease, content).encode()
        with lease.control.sealed():
            self._store.replace(key, decided, _JSON)
        return decided

    def _decide(self, lease: Lease, content: str) -> str:
        while True:
            try:
                decided = self._ledger.commit(lease.job_id, lease.token, content)
            except (BrokerUnavailableError, BrokerFullError) as error:
                logger.warning("cannot be committed yet: %s", error)
                lease.control.sleep(REDIS_PAUSE)
                continue
            if decided is None:
                raise LeaseLost("somebody else has the job")
            return decided


def read_manifest(content: bytes) -> JobResult:
    """The result that stands in a manifest."""
    return JobResult.model_validate(json.loads(content))
