"""A worker that waits for a server, as the fleet sees it."""

import os
import socket
import time
import uuid
from contextlib import suppress

from tasks.errors import JobError
from workers.ledger import Ledger
from workers.ledger.fleet import WorkerStatus
from workers.version import own_version


class Spare:
    """Tells of this process until it has a server, and is somebody."""

    def __init__(self, ledger: Ledger, slots: int) -> None:
        """Take a ledger, which is closed with this; nothing is told yet."""
        self._ledger = ledger
        self._status = WorkerStatus(
            id=f"spare-{uuid.uuid4().hex}",
            worker=f"spare-{os.getpid()}@{socket.gethostname()}",
            instance="",
            state="spare",
            slots=slots,
            reason="waits until a server is free",
            version=own_version(),
            started_at=time.time(),
        )
        self._is_told = False

    def tell(self) -> None:
        """Say that it still waits; if nobody hears it is said again soon."""
        with suppress(JobError):
            self._ledger.fleet.tell(self._status)
            self._is_told = True

    def close(self) -> None:
        """It waits no more."""
        if self._is_told:
            with suppress(JobError):
                self._ledger.fleet.forget(self._status.id)
        self._ledger.close()
