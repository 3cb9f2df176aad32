"""What the fleet knows of its jobs, in Redis: who has one, where its prompt is, how it ended."""

from workers.ledger.ledger import (
    Cancelled,
    Claimed,
    Ended,
    Held,
    Ledger,
    Outcome,
    Verdict,
)
from workers.ledger.record import Record, Route

__all__ = [
    "Cancelled",
    "Claimed",
    "Ended",
    "Held",
    "Ledger",
    "Outcome",
    "Record",
    "Route",
    "Verdict",
]
