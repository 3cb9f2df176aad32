"""Jobs that take down whoever tries them, put aside until somebody has had a look."""

import logging
from typing import Any

import redis
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tasks.result import Attempt
from workers.ledger.seam import translated

logger = logging.getLogger(__name__)

KEY = "comfyfleet:dead"


class DeadLetter(BaseModel):
    """A job that was put aside."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    job_id: str
    request: dict[str, Any] = Field(description="The task's keyword arguments.")
    priority: int | None = Field(None, description="As it came from the broker.")
    is_signed: bool = Field(False, description="Whether its producer had signed it.")
    attempts: tuple[Attempt, ...]
    error: str = Field(description="Type and message of the last one.")
    at: float = Field(description="When it was put aside, Unix time in seconds.")


class DeadLetters:
    """The dead letters of the fleet. Thread-safe.

    Every method raises BrokerUnavailableError or BrokerFullError.
    """

    def __init__(self, client: redis.Redis) -> None:
        """Take a Redis client that decodes answers; it stays its maker's to close."""
        self._redis = client

    def all(self) -> list[DeadLetter]:
        """Every job that was put aside, oldest first."""
        with translated():
            found = self._redis.hvals(KEY)
        letters = []
        for one in found:
            try:
                letters.append(DeadLetter.model_validate_json(one, extra="ignore"))
            except ValidationError:
                # The others must be seen all the same.
                logger.warning("a dead letter cannot be read")
        return sorted(letters, key=lambda letter: letter.at)

    def count(self) -> int:
        """How many there are."""
        with translated():
            return int(self._redis.hlen(KEY))

    def get(self, job_id: str) -> DeadLetter | None:
        """One job that was put aside."""
        with translated():
            found = self._redis.hget(KEY, job_id)
        return DeadLetter.model_validate_json(found, extra="ignore") if found is not None else None

    def discard(self, job_id: str) -> bool:
        """Forget a job that was put aside; whether it was there."""
        with translated():
            return bool(self._redis.hdel(KEY, job_id))
