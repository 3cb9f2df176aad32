"""What workers tell each other of their servers: what these can do, and have loaded."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from workers.ledger.connection import connect
from workers.ledger.seam import translated

# Seconds that what a worker has told counts, unless it tells it again. Jobs that no other server
# can run wait for so long for a worker that was frozen, cut off or started again.
TOLD_SECONDS = 60
# The same for what its server has loaded: jobs wait for less, and others can run them.
WARM_SECONDS = 15
# Seconds that capabilities are kept which nobody names any more.
_KEPT_SECONDS = 3600

# Of each server that a worker has told of, by its place; and the places.
_SERVER = "comfyfleet:server:"
_SERVERS = "comfyfleet:servers"
# Capabilities by their digest: those of equal servers are told once.
_CAPABILITIES = "comfyfleet:capabilities:"
# Of the capabilities that servers have, or had, by the time (seconds) until which they count.
DIGESTS = "comfyfleet:digests"
# Members `models digest place` by the server's time (seconds) until which that holds.
WARM = "comfyfleet:warm"

# The time by the server, in seconds.
NOW = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
"""

# Adds what was told of each place that is still live.
_ADD_LIVE = f"""
local function add_live(answer)
  for _, place in ipairs(redis.call('SMEMBERS', KEYS[1])) do
    local server = redis.call('GET', '{_SERVER}' .. place)
    if server then table.insert(answer, server) else redis.call('SREM', KEYS[1], place) end
  end
  return answer
end
"""

# KEYS: the places. What was told of each that is still live.
_LIVE = f"""
{_ADD_LIVE}
return add_live({{}})
"""

# KEYS: the places, digests, capabilities. ARGV: a place, what is told of it, the digest; for how
# many seconds that counts, and for how many its capabilities are kept. Whether these are known, and
# then as above.
_TELL = f"""
{NOW}
{_ADD_LIVE}
-- A full server (maxmemory) lets a script go on that has begun to write.
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - ARGV[5])
redis.call('SET', '{_SERVER}' .. ARGV[1], ARGV[2], 'EX', ARGV[4])
redis.call('ZADD', KEYS[2], 'GT', now + ARGV[4], ARGV[3])
redis.call('SADD', KEYS[1], ARGV[1])
local known = redis.call('EXPIRE', KEYS[3], ARGV[5])
return add_live({{known}})
"""

# KEYS: the warm. ARGV: models, digest and place; seconds that it holds; 1: become warm if nobody
# else is, 2: in any case, 0: ask; then the digests of those that count for nothing.
# `elsewhere`: another one is warm for these models; `here`: now this one is; `nowhere`.
_WARM_UP = (
    NOW
    + """
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
local unable = {}
for i = 6, #ARGV do unable[ARGV[i]] = true end
local own = {}
for _, one in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  local models, digest, place = string.match(one, '^(%S*) (%S*) (.*)$')
  if place == ARGV[3] then
    table.insert(own, one)
  elseif models == ARGV[1] and not unable[digest] and ARGV[5] ~= '2' then
    return 'elsewhere'
  end
end
if ARGV[5] == '0' then return 'nowhere' end
for _, one in ipairs(own) do redis.call('ZREM', KEYS[1], one) end
if ARGV[1] ~= '' then
  local member = ARGV[1] .. ' ' .. ARGV[2] .. ' ' .. ARGV[3]
  redis.call('ZADD', KEYS[1], now + ARGV[4], member)
end
return 'here'
"""
)

Warmth = Literal["here", "elsewhere", "nowhere"]


class Device(BaseModel):
    """A GPU, or what stands in for one."""

    model_config = ConfigDict(frozen=True)

    name: str
    kind: str
    vram_total_bytes: int | None = None
    vram_free_bytes: int | None = None


class Server(BaseModel):
    """A server that a worker drives, as that tells of it."""

    model_config = ConfigDict(frozen=True)

    place: str
    instance: str = Field(description="Base URL.")
    worker: str
    version: str = Field(description="Of ComfyUI; empty if it did not say.")
    digest: str = Field(description="Of its capabilities; empty if they are not known.")
    takes_jobs: bool
    devices: tuple[Device, ...] = ()
    ram_total_bytes: int | None = None
    ram_free_bytes: int | None = None


@dataclass(frozen=True)
class Loaded:
    """The models that a server has loaded, by the name of their set."""

    models: str
    digest: str
    place: str


class Servers:
    """The servers of the fleet. Thread-safe.

    Every method raises BrokerUnavailableError or BrokerFullError.
    """

    def __init__(self, url: str) -> None:
        """Prepare a client of this Redis server; nothing is opened before the first command."""
        self._redis = connect(url)
        self._tell = self._redis.register_script(_TELL)
        self._live = self._redis.register_script(_LIVE)
        self._warm_up = self._redis.register_script(_WARM_UP)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._redis.close()

    def tell(self, server: Server) -> tuple[bool, list[Server]]:
        """Tell of a server for `TOLD_SECONDS`.

        Returns:
            whether its capabilities are known to others, and all servers, as `live`.
        """
        with translated():
            known, *told = self._tell(
                keys=[_SERVERS, DIGESTS, _CAPABILITIES + server.digest],
                args=[
                    *(server.place, server.model_dump_json(), server.digest),
                    *(TOLD_SECONDS, _KEPT_SECONDS),
                ],
            )
        return bool(known), _read(told)

    def tell_capabilities(self, digest: str, packed: bytes) -> None:
        """Have others know the capabilities with this digest."""
        with translated():
            self._redis.set(_CAPABILITIES + digest, packed, ex=_KEPT_SECONDS)

    def capabilities(self, digest: str) -> bytes | None:
        """The capabilities with this digest; None if nobody has told them."""
        with translated():
            packed: Any = self._redis.get(_CAPABILITIES + digest)
        return cast("bytes | None", packed)

    def remembered(self) -> list[str]:
        """The digests of capabilities that servers have, or had not long ago."""
        with translated():
            digests: list[Any] = list(self._redis.zrange(DIGESTS, 0, -1))
        return [digest.decode() for digest in digests]

    def live(self) -> list[Server]:
        """The servers that workers have told of lately, by place."""
        with translated():
            told: list[Any] = self._live(keys=[_SERVERS])
        return _read(told)

    def warm_up(
        self,
        loaded: Loaded,
        *,
        unable: Iterable[str] = (),
        may: bool = True,
        must: bool = False,
    ) -> Warmth:
        """Note that a server is about to load models, unless another one has them.

        Args:
            loaded: what it has then; without a name: nothing any more.
            unable: digests of servers that are of no account.
            may: whether it does if nobody has them.
            must: whether it does also if somebody has.
        """
        args: list[str | float] = [loaded.models, loaded.digest, loaded.place, WARM_SECONDS]
        args += [2 if must else int(may), *unable]
        with translated():
            told = self._warm_up(keys=[WARM], args=args)
        warmth: Mapping[bytes, Warmth] = {b"here": "here", b"elsewhere": "elsewhere"}
        return warmth.get(told, "nowhere")


def _read(told: Iterable[bytes]) -> list[Server]:
    servers = [server for text in told if (server := _server(text)) is not None]
    return sorted(servers, key=lambda one: one.place)


def _server(text: bytes) -> Server | None:
    try:
        # A later version may tell more than this one knows.
        return Server.model_validate_json(text, extra="ignore")
    except ValidationError:
        return None
