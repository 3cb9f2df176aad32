"""Which worker drives which ComfyUI server: one lease a server, each change one step for all."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from workers.ledger.connection import connect
from workers.ledger.ledger import LEASE_SECONDS, RESTART_GRACE_SECONDS
from workers.ledger.seam import translated

# A server is a hash: `token` grows with each worker that takes any server, and fences off earlier
# ones; `until` is the end of the lease in milliseconds, 0 if it was let go of; `nonce` tells a
# taking that is repeated from a new one; `since` is when it was taken; `holder` is ours to read.
_PIN = "comfyfleet:pin:"
_TOKENS = "comfyfleet:pins"

# Milliseconds for which it is remembered who drove a server last.
_KEPT_MS = 24 * 3600 * 1000

# A full server (maxmemory) lets a script go on that has begun to write.
_BEGIN = """
redis.call('HDEL', KEYS[1], '')
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local pin = redis.call('HMGET', KEYS[1], 'token', 'until', 'nonce')
local ends = tonumber(pin[2] or 0)
"""

# KEYS: server, tokens. ARGV: lease ms, keep ms, nonce, holder, grace ms, the token of a holder that
# is known to be gone or nothing. The token; nothing if somebody else has the server.
_TAKE = (
    _BEGIN
    + """
if pin[3] ~= ARGV[3] or ends == 0 then
    if ends > 0 and pin[1] ~= ARGV[6] then
        if ends > now then return false end
        -- While Redis was away nobody could renew.
        local up = tonumber(string.match(redis.call('INFO', 'server'), 'uptime_in_seconds:(%d+)'))
        if up * 1000 < tonumber(ARGV[5]) then return false end
    end
    pin[1] = redis.call('INCR', KEYS[2])
    redis.call('HSET', KEYS[1], 'token', pin[1], 'nonce', ARGV[3], 'holder', ARGV[4], 'since', now)
end
redis.call('HSET', KEYS[1], 'until', now + ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return tonumber(pin[1])
"""
)

# KEYS: server, tokens. ARGV: lease ms, keep ms, nonce, holder, token. 0: somebody else has it.
_RENEW = (
    _BEGIN
    + """
if not pin[1] then
    -- Redis has forgotten; who comes first has it.
    if tonumber(redis.call('GET', KEYS[2]) or 0) < tonumber(ARGV[5]) then
        redis.call('SET', KEYS[2], ARGV[5])
    end
    redis.call('HSET', KEYS[1], 'token', ARGV[5], 'nonce', ARGV[3], 'holder', ARGV[4], 'since', now)
elseif pin[1] ~= ARGV[5] or pin[3] ~= ARGV[3] then
    return 0
end
redis.call('HSET', KEYS[1], 'until', now + ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
"""
)

# KEYS: server. ARGV: nonce.
_LET_GO = (
    _BEGIN
    + """
if pin[3] == ARGV[1] then redis.call('HSET', KEYS[1], 'until', 0) end
"""
)

# KEYS: servers. Of each what is known, or nothing; and the time.
_LOOK = """
local t = redis.call('TIME')
local answer = {t[1] * 1000 + math.floor(t[2] / 1000)}
for _, key in ipairs(KEYS) do
    table.insert(answer, redis.call('HMGET', key, 'token', 'until', 'since', 'holder'))
end
return answer
"""


class Process(BaseModel):
    """A process, told apart from all that have been or will be on any machine.

    Attributes:
        boot: of the machine; empty where that has no name.
        namespaces: in which its id counts.
        pid: its id.
        started: when it began, in a form that only the machine reads.
    """

    model_config = ConfigDict(frozen=True)

    boot: str = ""
    namespaces: str = ""
    pid: int = 0
    started: str = ""


class Holder(BaseModel):
    """A worker that drives a server, as others are told of it."""

    model_config = ConfigDict(frozen=True)

    worker: str
    host: str
    process: Process = Process()


@dataclass(frozen=True)
class Pin:
    """What is known of a server.

    Attributes:
        token: of the one who took it last.
        seconds: until its lease ends; 0 or less if it has ended.
        let_go: whether it was given up in order.
        since: when it was taken, Unix time in seconds.
        holder: who took it last.
    """

    token: int
    seconds: float
    let_go: bool
    since: float
    holder: Holder


class Pins:
    """The leases on the fleet's servers. Thread-safe.

    Every method raises BrokerUnavailableError or BrokerFullError.
    """

    def __init__(self, url: str) -> None:
        """Prepare a client of this Redis server; nothing is opened before the first command."""
        self._redis = connect(
            url, socket_timeout=3.0, socket_connect_timeout=3.0, decode_responses=True
        )
        self._take = self._redis.register_script(_TAKE)
        self._renew = self._redis.register_script(_RENEW)
        self._let_go = self._redis.register_script(_LET_GO)
        self._look = self._redis.register_script(_LOOK)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._redis.close()

    def take(self, place: str, holder: Holder, nonce: str, gone: int | None = None) -> int | None:
        """Take a server for `LEASE_SECONDS`, if nobody has it.

        Args:
            place: of the server.
            holder: who takes it.
            nonce: of this process; a taking that is repeated, as its answer was lost, is the same.
            gone: the token of one that is known to be gone, whose lease need not be waited for.

        Returns:
            the token, which is higher than any before; None if somebody else has the server.
        """
        grace = _ms(RESTART_GRACE_SECONDS)
        with translated():
            token: int | None = self._take(
                keys=[_PIN + place, _TOKENS],
                args=[*_lease(holder, nonce), grace, "" if gone is None else gone],
            )
        return token

    def renew(self, place: str, holder: Holder, nonce: str, token: int) -> bool:
        """Renew the lease; whether the server is still ours."""
        with translated():
            keys = [_PIN + place, _TOKENS]
            return bool(self._renew(keys=keys, args=[*_lease(holder, nonce), token]))

    def let_go(self, place: str, nonce: str) -> None:
        """Give a server up, if it is this process that has it."""
        with translated():
            self._let_go(keys=[_PIN + place], args=[nonce])

    def look(self, places: Sequence[str]) -> list[Pin | None]:
        """What is known of each server; None if nobody has driven it lately."""
        with translated():
            now, *told = self._look(keys=[_PIN + place for place in places])
        return [_pin(one, now) for one in told]


def _lease(holder: Holder, nonce: str) -> list[str | int]:
    return [_ms(LEASE_SECONDS), _KEPT_MS, nonce, holder.model_dump_json()]


def _pin(told: Sequence[Any], now: int) -> Pin | None:
    token, until, since, holder = told
    if token is None:
        return None
    ends = int(until or 0)
    return Pin(
        token=int(token),
        seconds=(ends - now) / 1000,
        let_go=ends == 0,
        since=int(since) / 1000,
        holder=_holder(holder),
    )


def _holder(text: str) -> Holder:
    try:
        # A later version may tell more than this one knows.
        return Holder.model_validate_json(text, extra="ignore")
    except ValidationError:
        return Holder(worker="a worker of another version", host="unknown")


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
