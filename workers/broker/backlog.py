"""How much waits, and for how long: what the queue's depth says without reading all of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from celery import Celery
from kombu.transport.redis import PRIORITY_STEPS, Channel

from settings import Settings
from settings.celery import QUEUE, UNACKED, celery_options
from tasks.errors import BrokerUnavailableError
from workers.broker.scripts import LANES, lane_name
from workers.broker.waiting import are_listed, connected
from workers.ledger import Ledger
from workers.ledger.servers import NOW

# The level of all that waits, on a broker that does not tell levels apart.
ALL = "all"

# The queue of each level, on a broker that lets nobody look into it.
_QUEUES = {ALL: QUEUE}
_SECONDS = 5.0

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
        waiting: how many wait by priority, as the broker has it, those in lanes included; by `all`
            on a broker that does not tell priorities apart.
        oldest_seconds: for how long the oldest of those that are next waits; None if nothing does,
            or the broker does not tell. Of messages that do not say when they were enqueued it
            counts since somebody looked first while they were next: at least so long.
        taken: how many are in workers' hands, those included that are to begin later.
        lanes: how many wait in each lane.
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
    if are_listed(settings):
        return _on_redis(settings.ledger_url)
    return _elsewhere(settings)


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


def _elsewhere(settings: Settings) -> Backlog:
    with Celery(set_as_current=False) as app:
        app.conf.update(celery_options(settings))
        waiting = {
            level: _reached(partial(_declared, app, queue)) for level, queue in _QUEUES.items()
        }
    with Ledger(settings.ledger_url) as ledger:
        taken = ledger.jobs.count(["running"], since=0.0)["running"]
    return Backlog(waiting, None, taken)


def _declared(app: Celery, queue: str) -> int:
    """The depth that the broker tells of a queue; 0 if there is none yet."""
    with app.connection_for_read(connect_timeout=_SECONDS) as connection:
        connection.ensure_connection(max_retries=1, interval_start=0, timeout=_SECONDS)
        try:
            found = connection.default_channel.queue_declare(queue, passive=True)
        except connection.channel_errors:
            return 0
    return int(found.message_count)


def _reached(ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except Exception as error:
        # Each broker has errors of its own.
        raise BrokerUnavailableError(
            f"the broker did not answer ({type(error).__name__})"
        ) from error
