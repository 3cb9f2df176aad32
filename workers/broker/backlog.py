"""How much waits, and for how long: what the queue's depth says without reading all of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kombu.transport.redis import PRIORITY_STEPS, Channel

from settings import Settings
from settings.celery import QUEUE, UNACKED
from workers.broker.rabbitmq.depth import waiting as rabbitmq_waiting
from workers.broker.rabbitmq.lanes import LANES as RABBITMQ_LANES
from workers.broker.scripts import LANES, lane_name
from workers.broker.waiting import connected
from workers.ledger import Ledger
from workers.ledger.servers import NOW

# Headers stand before the body or after it, which may have megabytes: nobody waits for it to be
# gone through.
_HEADERS_BYTES = 32_768

# By list the id of the message that is taken next, and since when it is, by the server.
_NEXT = "comfyfleet:next"

# KEYS: what is noted of the next messages. ARGV: queue, how lanes' lists begin, the priority's
# suffixes. Answers with a length a suffix, then each lane and its length, then how long (seconds)
# the oldest waits, or -1 if nothing does. Of messages that do not tell when they were enqueued it
# counts since when they are seen to be the next ones. Quotes inside of texts are escaped, so that
# what is found stands among the headers.
_READ = f"""
redis.call('HDEL', KEYS[1], '')
{NOW}
local function told_at(item)
  local at = string.find(item, '"enqueued_at":', 1, true)
  return at and tonumber(string.match(item, '^%s*([%d.]+)', at + 14))
end
local function seen_at(list, item)
  local start = string.find(item, '"headers":', 1, true) or 1
  local at = string.find(item, '"id":', start, true)
  local id = at and string.match(item, '^%s*"([^"]*)"', at + 5) or ''
  local noted, since = string.match(redis.call('HGET', KEYS[1], list) or '', '^(.*) ([%d.]+)$')
  if noted == id then return tonumber(since) end
  redis.call('HSET', KEYS[1], list, id .. ' ' .. string.format('%.3f', now))
  return now
end
local oldest = -1
local function look(list)
  local length = redis.call('LLEN', list)
  local item = length > 0 and redis.call('LINDEX', list, -1)
  if item then
    if #item > 2 * {_HEADERS_BYTES} then
      item = string.sub(item, 1, {_HEADERS_BYTES}) .. string.sub(item, -{_HEADERS_BYTES})
    end
    oldest = math.max(oldest, now - (told_at(item) or seen_at(list, item)), 0)
  else
    redis.call('HDEL', KEYS[1], list)
  end
  return length
end
local lengths, lanes = {{}}, {{}}
for i = 3, #ARGV do lengths[i - 2] = look(ARGV[1] .. ARGV[i]) end
for _, id in ipairs(redis.call('HKEYS', '{LANES}' .. ARGV[1])) do
  local sum = 0
  for i = 3, #ARGV do
    local length = look(ARGV[2] .. id .. ARGV[i])
    lengths[i - 2], sum = lengths[i - 2] + length, sum + length
  end
  table.insert(lanes, id)
  table.insert(lanes, sum)
end
return {{lengths, lanes, string.format('%.3f', oldest)}}
"""


@dataclass(frozen=True)
class Backlog:
    """The jobs that wait, and those that workers have taken.

    Attributes:
        waiting: how many wait by priority, as the broker has it, those in lanes included.
        oldest_seconds: for how long the oldest of those that are next waits; None if nothing does,
            or on RabbitMQ, which does not tell. Of messages that do not say when they were enqueued
            it counts since somebody looked first while they were next: at least so long.
        taken: how many are in workers' hands; those included that are to begin later, but not on
            RabbitMQ.
        lanes: how many wait in each lane; on RabbitMQ none is told apart.
    """

    waiting: Mapping[str, int]
    oldest_seconds: float | None
    taken: int
    lanes: Mapping[str, int] = field(default_factory=dict)

    @property
    def depth(self) -> int:
        """How many wait."""
        return sum(self.waiting.values())


def read_backlog(settings: Settings) -> Backlog:
    """What waits on the broker, at a cost that does not grow with it.

    Raises:
        BrokerUnavailableError: the broker, or the ledger's Redis, is away.
    """
    return _on_rabbitmq(settings) if settings.on_rabbitmq else _on_redis(settings.ledger_url)


def _on_redis(url: str) -> Backlog:
    suffixes = [f"{Channel.sep}{step}" if step else "" for step in PRIORITY_STEPS]
    with connected(url) as client:
        pipe = client.pipeline(transaction=False)
        pipe.eval(_READ, 1, _NEXT, QUEUE, lane_name(QUEUE, ""), *suffixes)
        pipe.hlen(UNACKED)
        (lengths, lanes, oldest), taken = pipe.execute()
    waiting = dict(zip(map(str, PRIORITY_STEPS), lengths, strict=True))
    names = [one.decode(errors="replace") for one in lanes[::2]]
    seconds = float(oldest)
    return Backlog(
        waiting,
        seconds if seconds >= 0 else None,
        taken,
        {name: length for name, length in zip(names, lanes[1::2], strict=True) if length},
    )


def _on_rabbitmq(settings: Settings) -> Backlog:
    with connected(settings.ledger_url) as client:
        names: list[Any] = list(client.hkeys(RABBITMQ_LANES))
    with Ledger(settings.ledger_url) as ledger:
        taken = ledger.jobs.count(["running"], since=0.0)["running"]
    return Backlog(rabbitmq_waiting([name.decode() for name in names]), None, taken)
