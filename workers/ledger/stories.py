"""What happened to each of the latest jobs, line by line, for whoever asks for a job's story."""

import json
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import redis

from workers.ledger.scripts import JOBS, MOST_INDEXED
from workers.ledger.seam import translated
from workers.observing.story import Line

# The jobs that have a story, by the time (ms) of its last line.
STORIES = "comfyfleet:stories"
_STORY = "comfyfleet:story:"

_KEEP_SECONDS = 7 * 24 * 3600
# Lines of a story; above the lower bound those of files are left out.
_MOST_LINES = 200
_MOST_FILES = 100

# KEYS: the jobs that have a story, those that failed. ARGV: keep ms, how many jobs have a story at
# most, how many lines a story has, how many if the line may be left out; then of each line its job,
# whether it `may` be left out, `must` stand there, or `refused` the job, and the line.
# A full server is not filled further: lines may be lost.
_TELL = f"""
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local touched = {{}}
for i = 5, #ARGV, 3 do
  local key = '{_STORY}' .. ARGV[i]
  touched[ARGV[i]] = key
  if ARGV[i + 1] ~= 'may' or redis.call('LLEN', key) < tonumber(ARGV[4]) then
    redis.call('RPUSH', key, ARGV[i + 2])
  end
  if ARGV[i + 1] == 'refused' then
    redis.call('ZADD', KEYS[2], 'NX', now, ARGV[i])
    redis.call('ZREMRANGEBYRANK', KEYS[2], 0, -ARGV[2] - 1)
  end
end
for id, key in pairs(touched) do
  redis.call('ZADD', KEYS[1], now, id)
  redis.call('LTRIM', key, -ARGV[3], -1)
  redis.call('PEXPIRE', key, ARGV[1])
end
local over = redis.call('ZCARD', KEYS[1]) - ARGV[2]
if over > 0 then
  local oldest = redis.call('ZPOPMIN', KEYS[1], over)
  for i = 1, #oldest, 2 do redis.call('DEL', '{_STORY}' .. oldest[i]) end
end
"""


class Stories:
    """The stories of the latest jobs. Thread-safe.

    Every method raises BrokerUnavailableError or BrokerFullError.
    """

    def __init__(self, client: redis.Redis) -> None:
        """Take a Redis client that decodes answers; it stays its maker's to close."""
        self._redis = client
        self._tell = client.register_script(_TELL)

    def tell(self, lines: Iterable[Line]) -> None:
        """Add lines to the stories of their jobs, in one step."""
        args: list[str | int] = [_KEEP_SECONDS * 1000, MOST_INDEXED, _MOST_LINES, _MOST_FILES]
        for one in lines:
            args += [one.job_id, one.weight, json.dumps(one.told)]
        with translated():
            self._tell(keys=[STORIES, JOBS + "failed"], args=args)

    def of(self, job_id: str) -> list[dict[str, Any]]:
        """The lines of a job's story, oldest first; none if it has none, or not any more."""
        with translated():
            found: list[Any] = list(self._redis.lrange(story_key(job_id), 0, -1))
        lines = []
        # Lines that a server took before it fell silent are written again.
        for text in dict.fromkeys(found):
            with suppress(ValueError):
                lines.append(json.loads(text))
        # Workers tell at different times.
        return sorted(lines, key=lambda line: float(line.get("at", 0)))


def story_key(job_id: str) -> str:
    """Where a job's story is."""
    return _STORY + job_id
