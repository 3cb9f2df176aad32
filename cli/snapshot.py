"""The fleet at one moment: workers, queue, rates and failures."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cli.fleet import open_ledger
from cli.jobs import Row, find_rows
from cli.queue import backlog_json
from cli.states import Kind
from cli.workers import worker_json
from settings import load
from workers.broker.backlog import Backlog, read_backlog
from workers.ledger.fleet import Heard
from workers.ledger.jobs import ENDS

# Seconds over which jobs are counted.
WINDOWS = {"1 min": 60.0, "10 min": 600.0, "1 h": 3600.0}

_FAILURES = 5


@dataclass(frozen=True)
class Snapshot:
    """What is known of the fleet.

    Attributes:
        at: when, Unix time.
        workers: by name.
        backlog: of the queue.
        rates: how many jobs ended how in each of the windows; the latest 10,000 of each end are
            counted.
        failures: the latest jobs that failed.
    """

    at: float
    workers: Sequence[Heard]
    backlog: Backlog
    rates: Mapping[str, Mapping[str, int]]
    failures: Sequence[Row]

    def as_json(self) -> dict[str, Any]:
        """The snapshot as programs read it."""
        return {
            "at": self.at,
            "workers": [worker_json(one) for one in self.workers],
            "queue": backlog_json(self.backlog),
            "ended": {name: dict(rates) for name, rates in self.rates.items()},
            "failures": [row.as_json() for row in self.failures],
        }


def take() -> Snapshot:
    """The fleet as it is now.

    Raises:
        CommandError: Redis is away.
    """
    now = time.time()
    with open_ledger() as ledger:
        return Snapshot(
            now,
            ledger.fleet.all(),
            read_backlog(load()),
            {
                name: {str(k): n for k, n in ledger.jobs.count(ENDS, since=now - seconds).items()}
                for name, seconds in WINDOWS.items()
            },
            find_rows([Kind.FAILED], _FAILURES, 0.0),
        )
