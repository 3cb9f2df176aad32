"""Stacks that are broken in one place each, and what doctor is to say of them."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import redis

from sandbox.proxy import Mode, TcpProxy
from sandbox.stack import Stack
from sandbox.valkey import Valkey
from tests.integration.hosts import Asked, Host
from tests.integration.store_proxy import Conditions, StoreProxy

NOWHERE = "127.0.0.1:1"
PASSWORD = "not-to-be-shown"  # of a server on loopback

Variables = dict[str, str]
Break = Callable[[Stack, Valkey], Any]


@dataclass(frozen=True)
class Broken:
    """A way to break a stack.

    Attributes:
        breaking: a context in which it is so, with the variables that lead there.
        finds: the checks that do not pass, with their status and a part of their sentence.
        fix: a part of the first one's fix.
        code: of the command.
        ends_worker: whether no worker starts like that.
    """

    breaking: Break
    finds: dict[str, tuple[str, str]] = field(default_factory=dict)
    fix: str = ""
    code: int = 1
    ends_worker: bool = False


def _set(**variables: str) -> Break:
    @contextmanager
    def breaking(_stack: Stack, _valkey: Valkey) -> Iterator[Variables]:
        yield variables

    return breaking


def _redis(url: str) -> Variables:
    return {"CELERY_BROKER_URL": url, "CELERY_RESULT_BACKEND": url}


def _with_config(user: str = "", **config: str) -> Break:
    """A Redis that is configured so, and a URL with this user and password."""

    @contextmanager
    def breaking(_stack: Stack, valkey: Valkey) -> Iterator[Variables]:
        with redis.Redis.from_url(valkey.url) as admin:
            before = {name: admin.config_get(name)[name] for name in config}
            for name, value in config.items():
                admin.config_set(name, value)
            try:
                yield _redis(valkey.url.replace("://", f"://{user}"))
            finally:
                for name, value in before.items():
                    admin.config_set(name, value)

    return breaking


def _behind_store(**options: Any) -> Break:
    @contextmanager
    def breaking(stack: Stack, _valkey: Valkey) -> Iterator[Variables]:
        with StoreProxy(stack.seaweedfs.url, **options) as proxy:
            yield {"S3_ENDPOINT_URL": proxy.url}

    return breaking


def _at_comfyui(**answers: Any) -> Break:
    """Something else at the server's address; what it answers to each path, else a page."""

    @contextmanager
    def breaking(_stack: Stack, _valkey: Valkey) -> Iterator[Variables]:
        with Host(tls=False) as host:
            host.paths = defaultdict(lambda: _not_found)
            for path in ("/queue", "/system_stats"):
                host.paths[path] = _answering(answers.get(path.strip("/")))
            yield {"COMFYUI_URL": host.url("", "127.0.0.1")}

    return breaking


def _not_found(asked: Asked) -> None:
    asked.answer(status="404 Not Found", Connection="close")


def _answering(content: Any) -> Callable[[Asked], None]:
    body = b"<html>a page</html>" if content is None else json.dumps(content).encode()
    return lambda asked: asked.answer(body, Connection="close")


@contextmanager
def _read_only(stack: Stack, _valkey: Valkey) -> Iterator[Variables]:
    yield stack.seaweedfs.allow("reader", "Read", "List")


@contextmanager
def _black_hole(_stack: Stack, valkey: Valkey) -> Iterator[Variables]:
    with TcpProxy("127.0.0.1", urlsplit(valkey.url).port or 0) as proxy:
        proxy.set(Mode.BLACKHOLE)
        yield _redis(f"redis://{proxy.address}/0")


STACKS: dict[str, Broken] = {
    "broker away": Broken(
        _set(**_redis(f"redis://{NOWHERE}/0")),
        {"broker": ("fail", "cannot be connected (ConnectionRefusedError)")},
        "correct host and port",
    ),
    "broker swallows packets": Broken(
        _black_hole, {"broker": ("fail", "did not answer in time")}, "a firewall"
    ),
    "wrong Redis password": Broken(
        _with_config(":wrong@", requirepass=PASSWORD),
        {"broker": ("fail", "refuses the password or the user")},
        "redis://USER:PASSWORD@HOST",
        ends_worker=True,
    ),
    "no Redis password": Broken(
        _with_config(requirepass=PASSWORD),
        {"broker": ("fail", "refuses the password or the user, or wants one")},
        "redis://USER:PASSWORD@HOST",
        ends_worker=True,
    ),
    "eviction on": Broken(
        _with_config(**{"maxmemory": "100mb", "maxmemory-policy": "allkeys-lru"}),
        {"eviction": ("fail", "forgets jobs, leases or results when its memory is full")},
        "set maxmemory-policy noeviction",
        ends_worker=True,
    ),
    "Redis keeps nothing": Broken(
        _with_config(appendonly="no"),
        {"persistence": ("warn", "forgets all jobs when it dies")},
        "set appendonly yes",
        code=0,
    ),
    "missing bucket": Broken(
        _set(S3_BUCKET="nowhere"),
        {"store": ("fail", "there is no bucket 'nowhere' at http://127.0.0.1")},
        "correct S3_BUCKET",
    ),
    "read-only bucket": Broken(
        _read_only,
        {"store": ("fail", "is read-only for these credentials")},
        "allow s3:PutObject",
    ),
    "wrong S3 credentials": Broken(
        _set(AWS_SECRET_ACCESS_KEY=PASSWORD),
        {"store": ("fail", "refuses the credentials (403 SignatureDoesNotMatch)")},
        "correct AWS_ACCESS_KEY_ID",
    ),
    "no such AWS profile": Broken(
        _set(AWS_PROFILE="nobody"),
        {"store": ("fail", "(ProfileNotFound)")},
        "correct AWS_PROFILE",
        ends_worker=True,
    ),
    "store away": Broken(
        _set(S3_ENDPOINT_URL=f"http://{NOWHERE}"),
        {"store": ("fail", "did not answer (EndpointConnectionError)")},
        "correct S3_ENDPOINT_URL",
    ),
    "no conditional PUT": Broken(
        _behind_store(conditions=Conditions.IGNORE),
        {"conditional write": ("warn", "does not take conditional writes (If-None-Match)")},
        code=0,
    ),
    "conditional PUT refused": Broken(
        _behind_store(conditions=Conditions.REFUSE),
        {"conditional write": ("warn", "does not take conditional writes (If-None-Match)")},
        code=0,
    ),
    "store's clock off": Broken(
        _behind_store(clock_seconds=-3600),
        {"store clock": ("fail", "s ahead of the store's, and S3 refuses")},
        "by NTP",
    ),
    "ComfyUI away": Broken(
        _set(COMFYUI_URL=f"http://{NOWHERE}"),
        {"comfyui": ("fail", "refused or cut the connection")},
        "correct COMFYUI_URL",
    ),
    "something else at COMFYUI_URL": Broken(
        _at_comfyui(),
        {"comfyui": ("fail", "something answers something else than JSON")},
        "correct COMFYUI_URL",
    ),
    "ComfyUI too old": Broken(
        _at_comfyui(
            queue={"queue_running": [], "queue_pending": []},
            system_stats={"system": {"comfyui_version": "0.3.44"}},
        ),
        {"comfyui": ("fail", "is 0.3.44, which gives prompts ids of its own")},
        "update it to 0.3.45",
    ),
    "disk nearly full": Broken(
        # No test fills a disk: instead a single file may be larger than what is left.
        _set(INPUT_MAX_BYTES=str(10**17)),
        {"disk": ("fail", "less than one input may have")},
        "free that disk",
    ),
    "misspelt variable": Broken(
        _set(WORKER_SLOT="3"),
        {"settings": ("warn", "WORKER_SLOT is no setting, did you mean WORKER_SLOTS?")},
        "rename WORKER_SLOT",
        code=0,
    ),
}
