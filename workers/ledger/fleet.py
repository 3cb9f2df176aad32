"""The workers of the fleet, as each of them tells of itself every few seconds."""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import redis
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from workers.ledger.seam import translated

# Seconds between two times that a worker tells of itself.
TELL_SECONDS = 3.0
# Seconds of silence after which a worker counts as gone: it had four times to say something.
GONE_SECONDS = 12.0
# Seconds for which one is shown that is gone.
FORGET_SECONDS = 600.0

# By the id of its process what each worker told last: the server's time (ms), and the status.
WORKERS = "comfyfleet:workers"

# KEYS: the workers. ARGV: id, status.
# A full server (maxmemory) lets a script go on that has begun to write.
_TELL = """
redis.call('HDEL', KEYS[1], '')
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('HSET', KEYS[1], ARGV[1], string.format('%d ', now) .. ARGV[2])
"""

# KEYS: the workers. ARGV: ms after which one is forgotten. Of each how long (ms) ago it told what.
_ALL = """
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local all, told = redis.call('HGETALL', KEYS[1]), {}
for i = 1, #all, 2 do
  local at, status = string.match(all[i + 1], '^(%d+) (.*)$')
  if not at or now - at > tonumber(ARGV[1]) then
    redis.call('HDEL', KEYS[1], all[i])
  else
    table.insert(told, now - at)
    table.insert(told, status)
  end
end
return told
"""

State = Literal["ready", "busy", "paused", "leaving", "spare"]


class WorkerJob(BaseModel):
    """A job in a worker's hands."""

    model_config = ConfigDict(frozen=True)

    job_id: str
    stage: str = Field(description="staging, queued, executing or uploading.")
    since: float = Field(description="When the worker took it, Unix time.")


class WorkerStatus(BaseModel):
    """A worker, as it tells of itself."""

    model_config = ConfigDict(frozen=True)

    id: str = Field(description="Of its process: another one after each start.")
    worker: str = Field(description="Its name.")
    instance: str = Field(description="Base URL of its server; empty of a spare one.")
    state: State
    slots: int
    jobs: tuple[WorkerJob, ...] = ()
    reason: str = Field("", description="Why it is paused.")
    last_error: str | None = Field(None, description="Type and message of what failed last.")
    last_error_at: float | None = Field(None, description="When that was, Unix time.")
    version: str = Field(description="Of comfyfleet.")
    comfyui_version: str = Field("", description="Of its server; empty if that is not known.")
    started_at: float = Field(description="Unix time.")


@dataclass(frozen=True)
class Heard:
    """What was heard of a worker last, and how many seconds ago."""

    status: WorkerStatus
    seconds: float

    @property
    def state(self) -> State | Literal["gone"]:
        """Its state now: a worker that is silent for too long is gone."""
        return "gone" if self.seconds > GONE_SECONDS else self.status.state


class Fleet:
    """The registry of workers. Thread-safe.

    Every method raises BrokerUnavailableError or BrokerFullError.
    """

    def __init__(self, client: redis.Redis) -> None:
        """Take a Redis client that decodes answers; it stays its maker's to close."""
        self._redis = client
        self._tell = client.register_script(_TELL)
        self._all = client.register_script(_ALL)

    def tell(self, status: WorkerStatus) -> None:
        """Tell of a worker."""
        with translated():
            self._tell(keys=[WORKERS], args=[status.id, status.model_dump_json()])

    def forget(self, worker_id: str) -> None:
        """Strike off a worker that has left."""
        with translated():
            self._redis.hdel(WORKERS, worker_id)

    def all(self) -> list[Heard]:
        """Every worker by name; of those that are gone only who has no successor of that name."""
        with translated():
            told: list[Any] = self._all(keys=[WORKERS], args=[int(FORGET_SECONDS * 1000)])
        heard = []
        for ago, text in zip(told[::2], told[1::2], strict=True):
            # A later version may tell more than this one knows, or otherwise.
            with suppress(ValidationError):
                status = WorkerStatus.model_validate_json(text, extra="ignore")
                heard.append(Heard(status, float(ago) / 1000))
        return present(heard)


def present(heard: list[Heard]) -> list[Heard]:
    """Those that are to be shown, by name: of one name nobody is gone who has a successor."""
    here = {one.status.worker for one in heard if one.state != "gone"}
    latest: dict[str, float] = {}
    for one in heard:
        name = one.status.worker
        latest[name] = min(one.seconds, latest.get(name, one.seconds))
    shown = [
        one
        for one in heard
        if one.state != "gone"
        or (one.status.worker not in here and one.seconds == latest[one.status.worker])
    ]
    return sorted(shown, key=lambda one: (one.status.worker, one.status.started_at))
