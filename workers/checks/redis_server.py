"""A Redis, as broker, ledger or result backend."""

import re
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import redis
from redis import exceptions

from settings import Settings, redis_urls
from settings.masking import without_password
from workers.checks.clocks import judge_redis_clock
from workers.checks.finding import Judgement, fail, ok, warn
from workers.checks.redis_errors import CLUSTER, NEWER, judge_error

Info = Mapping[str, Any]

SCHEMES = tuple(f"{scheme}://" for scheme in redis_urls.SCHEMES)

# The first with BLMOVE and ZADD GT, by which messages are taken and leases are kept.
_OLDEST = (6, 2)
_NOEVICTION = "noeviction"
# A share of maxmemory above which there is little left.
_MUCH_USED = 0.8
_NEARLY_ALL_USED = 0.98

# KEYS: three that nobody else has. What the transport and the ledger do, in small; the number of
# members that a renewal leaves, which adds none.
_SCRIPT = """
local now = redis.call('TIME')[1]
redis.call('ZADD', KEYS[1], now - 1, 'held')
redis.call('ZADD', KEYS[1], 'XX', now, 'held')
redis.call('ZADD', KEYS[1], 'XX', now, 'given away')
redis.call('ZADD', KEYS[1], 'GT', now, 'held')
redis.call('LPUSH', KEYS[2], 'message')
redis.call('LMOVE', KEYS[2], KEYS[3], 'RIGHT', 'LEFT')
local left = redis.call('ZCARD', KEYS[1])
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
return left
"""


def redis_servers(settings: Settings) -> list[tuple[str, str]]:
    """The variables that name Redis servers, and the URLs; each server once."""
    found = [(settings.ledger_variable, settings.ledger_url)]
    if (results := settings.results_url) is not None and results != settings.ledger_url:
        found.append(("CELERY_RESULT_BACKEND", results))
    return found


class RedisChecks:
    """Asks one server. Thread-safe."""

    def __init__(self, open_client: Callable[[], redis.Redis], variable: str, url: str) -> None:
        """Prepare; the others make sense only when it could be reached.

        Args:
            open_client: makes a client of the server, whose waits should be short.
            variable: the setting that names it.
            url: what that says.
        """
        self._open_client = open_client
        self._opened: redis.Redis | None = None
        self._name = f"{variable} ({without_password(url)})"

    @property
    def _client(self) -> redis.Redis:
        if self._opened is None:
            self._opened = self._open_client()
        return self._opened

    def close(self) -> None:
        """Close all connections."""
        if self._opened is not None:
            self._opened.close()

    def reach(self) -> Judgement:
        """Whether it answers, and is one that will do."""
        try:
            self._client.ping()
            return judge_server(self._client.info(), self._name)
        except (TypeError, ValueError):
            return fail(
                f"{self._name} has options that the Redis client does not know",
                "take out of the URL what stands behind its question mark",
                heals=False,
            )
        except redis.RedisError as error:
            return judge_error(error, self._name)

    def scripts(self) -> Judgement:
        """Whether it runs the scripts by which messages are held, and leases kept."""
        keys = [f"comfyfleet:doctor:{uuid.uuid4().hex}:{part}" for part in ("index", "list", "to")]
        try:
            left = self._client.eval(_SCRIPT, len(keys), *keys)
        except redis.RedisError as error:
            return judge_error(error, self._name)
        if left != 1:
            return fail(
                f"{self._name} does not know ZADD XX: what a worker holds is not renewed",
                NEWER,
            )
        return ok("messages that are held can be renewed (scripts, ZADD XX, TIME, LMOVE)")

    def eviction(self) -> Judgement:
        """Whether it forgets what it has accepted when its memory is full."""
        return self._judged("memory", judge_eviction)

    def memory(self) -> Judgement:
        """Whether there is room for jobs and results."""
        return self._judged("memory", judge_memory)

    def persistence(self) -> Judgement:
        """Whether what it has accepted survives its end."""
        try:
            save = self._client.config_get("save").get("save")
        except redis.RedisError:
            # Such as of a managed one, which does not tell.
            save = None
        return self._judged("persistence", lambda info, name: judge_persistence(info, save, name))

    def clock(self) -> Judgement:
        """Whether its clock agrees with this host's."""
        try:
            asked_at = time.time()
            seconds, microseconds = self._client.time()
            now = (asked_at + time.time()) / 2
        except redis.RedisError as error:
            return judge_error(error, self._name)
        return judge_redis_clock(now - (seconds + microseconds / 1e6))

    def _judged(self, section: str, judge: Any) -> Judgement:
        try:
            judged: Judgement = judge(self._client.info(section), self._name)
        except exceptions.NoPermissionError:
            return warn(
                f"{self._name} does not let this user see its settings (INFO {section})",
                "allow it +info, or ask whoever runs it for noeviction and appendonly",
            )
        except redis.RedisError as error:
            return judge_error(error, self._name)
        return judged


def judge_server(info: Info, name: str) -> Judgement:
    """What it means that a server says this of itself (INFO)."""
    software = "Valkey" if info.get("server_name") == "valkey" else "Redis"
    shown = str(info.get("valkey_version") or info.get("redis_version") or "")
    version = tuple(int(part) for part in re.findall(r"\d+", str(info.get("redis_version", ""))))
    if version < _OLDEST:
        return fail(
            f"{name} is {software} {shown or 'of no version that it tells'}, too old to hold "
            "messages safely",
            NEWER,
            heals=False,
        )
    if info.get("cluster_enabled"):
        return fail(f"{name} {CLUSTER[0]}", CLUSTER[1], heals=False)
    if info.get("role") in ("slave", "replica"):
        return fail(f"{name} is a replica, which takes no writes", "name the primary in the URL")
    return ok(f"{name} answers: {software} {shown}")


def judge_eviction(info: Info, name: str) -> Judgement:
    """What it means for jobs what a server does when its memory is full (INFO memory)."""
    policy = str(info.get("maxmemory_policy") or _NOEVICTION)
    if policy == _NOEVICTION:
        return ok("a full Redis refuses rather than forgets (noeviction)")
    fix = (
        "set maxmemory-policy noeviction (CONFIG SET maxmemory-policy noeviction, and in its "
        "configuration file or parameter group)"
    )
    if not info.get("maxmemory"):
        return warn(
            f"{name} would forget jobs or leases if it had a maxmemory (policy {policy})", fix
        )
    return fail(
        f"{name} forgets jobs, leases or results when its memory is full: maxmemory is set and "
        f"its policy is {policy}",
        fix,
        heals=False,
    )


def judge_memory(info: Info, name: str) -> Judgement:
    """What it means that so much memory is used (INFO memory)."""
    used, most = int(info.get("used_memory") or 0), int(info.get("maxmemory") or 0)
    if not most:
        return ok(f"Redis uses {_mib(used)}, and has no maxmemory")
    sentence = f"{name} uses {_mib(used)} of {_mib(most)} (maxmemory)"
    fix = "give it more, or let results expire sooner (RESULT_EXPIRES)"
    if used >= _NEARLY_ALL_USED * most:
        return fail(f"{sentence}: it refuses new jobs, or soon will", fix)
    if used >= _MUCH_USED * most:
        return warn(sentence, fix)
    return ok(f"Redis uses {_mib(used)} of {_mib(most)}")


def judge_persistence(info: Info, save: str | None, name: str) -> Judgement:
    """What survives the server's end.

    Args:
        info: INFO persistence.
        save: when it takes snapshots; None if it does not tell.
        name: of the server.
    """
    append = "set appendonly yes, and appendfsync always if no accepted job may be lost"
    if info.get("aof_enabled"):
        if info.get("aof_last_write_status", "ok") != "ok":
            return fail(f"{name} cannot write its append-only file", "free the disk that it is on")
        return ok("what Redis has accepted survives its end (append-only file)")
    if save:
        return warn(f"{name} loses what came after its last snapshot when it dies", append)
    if save is None:
        return warn(
            f"{name} has no append-only file, and does not say if it takes snapshots", append
        )
    return warn(f"{name} forgets all jobs when it dies: it has no append-only file", append)


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"
