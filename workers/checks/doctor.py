"""Everything that a job needs, in the order in which it needs it."""

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial

from celery import Celery

from settings import Settings
from settings.lookalikes import in_environment
from tasks.errors import JobError
from workers.bootstrap.clients import comfyui_client, object_store, redis_client
from workers.checks.comfyui import ComfyUIChecks
from workers.checks.disk import check_disk
from workers.checks.environment import judge_settings
from workers.checks.finding import fail
from workers.checks.fleet import check_workers
from workers.checks.rabbitmq import check_rabbitmq
from workers.checks.redis_server import SCHEMES, RedisChecks, redis_servers
from workers.checks.render import JOB_SECONDS, RENDER_SECONDS, render_by_queue, render_directly
from workers.checks.result_backend import check_result_backend
from workers.checks.running import Check
from workers.checks.storage import StoreChecks, judge_configuration
from workers.ledger.servers import Servers
from workers.storage import ObjectStore

# Seconds that each answer may take.
_ASK_SECONDS = 2.5
# Beyond what a render itself may take: for connections, and for what it leaves behind.
_MORE_SECONDS = 15.0

_SETTINGS, _BROKER, _RESULTS, _STORE = "settings", "broker", "result backend", "store"
_COMFYUI, _NODES = "comfyui", "nodes"


@contextmanager
def all_checks(settings: Settings, app: Celery, *, render: bool) -> Iterator[list[Check]]:
    """The checks, with clients that are closed in the end; nothing is asked yet.

    Args:
        settings: valid ones.
        app: of producers.
        render: whether something is rendered, too.
    """
    with ExitStack() as closes:
        known = {str(field.alias) for field in type(settings).model_fields.values()}
        store = _store(settings, closes)
        yield [
            Check(_SETTINGS, lambda: judge_settings(settings, in_environment(known))),
            *_redis(settings, app, closes),
            *_bucket(settings, store),
            *_server(settings, store, closes, render=render),
        ]


def _redis(settings: Settings, app: Celery, closes: ExitStack) -> list[Check]:
    broker = settings.broker_url.get_secret_value()
    backend = settings.result_backend.get_secret_value()
    checks = []
    if not broker.startswith(SCHEMES):
        checks.append(Check(_BROKER, partial(check_rabbitmq, broker)))
    names: list[str] = []
    for variable, url in redis_servers(settings):
        redis = RedisChecks(partial(redis_client, url, _ASK_SECONDS), variable, url)
        closes.callback(redis.close)
        # The first one is the ledger, whatever carries the messages.
        name = (_BROKER if not checks else "ledger") if not names else "result server"
        names.append(name)
        checks.append(Check(name, redis.reach))
        if len(names) == 1:
            checks.append(Check("heartbeat", redis.scripts, (name,)))
        of = "" if len(names) == 1 else " of results"
        checks += [
            Check(f"eviction{of}", redis.eviction, (name,)),
            Check(f"memory{of}", redis.memory, (name,)),
            Check(f"persistence{of}", redis.persistence, (name,)),
            Check(f"clock{of}", redis.clock, (name,)),
        ]
    # Celery would try again for long before it says that a Redis cannot be reached.
    needs = (names[-1],) if backend.startswith(SCHEMES) else ()
    return [*checks, Check(_RESULTS, partial(check_result_backend, app, backend), needs)]


def _store(settings: Settings, closes: ExitStack) -> ObjectStore | JobError:
    try:
        return closes.enter_context(closing(object_store(settings, patient=False)))
    except JobError as error:
        return error


def _bucket(settings: Settings, store: ObjectStore | JobError) -> list[Check]:
    if not settings.s3_bucket:
        unset = fail(
            "S3_BUCKET is not set: workers do not start without it",
            "set it to the name of the bucket that receives outputs",
        )
        return [Check(_STORE, lambda: unset)]
    if isinstance(store, JobError):
        denied = judge_configuration(store)
        return [Check(_STORE, lambda: denied)]
    bucket = StoreChecks(store, settings.s3_prefix, settings.s3_endpoint_url)
    return [
        Check(_STORE, bucket.write),
        Check("store reads", bucket.read, (_STORE,)),
        Check("conditional write", bucket.conditions, (_STORE,)),
        Check("removal", bucket.removal, (_STORE,)),
        Check("store clock", bucket.clock, (_STORE,)),
    ]


def _server(
    settings: Settings,
    store: ObjectStore | JobError,
    closes: ExitStack,
    *,
    render: bool,
) -> list[Check]:
    comfyui = closes.enter_context(comfyui_client(settings, most_seconds=_ASK_SECONDS))
    server = ComfyUIChecks(comfyui, _ASK_SECONDS)
    others = [
        closes.enter_context(comfyui_client(settings, url, most_seconds=_ASK_SECONDS))
        for url in settings.comfyui_servers[1:]
    ]
    servers = partial(Servers, settings.ledger_url)
    checks = [
        Check(_COMFYUI, server.reach),
        Check("websocket", server.websocket, (_COMFYUI,)),
        Check(_NODES, server.nodes, (_COMFYUI,)),
        *(
            Check(f"{_COMFYUI} {number}", ComfyUIChecks(one, _ASK_SECONDS).reach)
            for number, one in enumerate(others, start=2)
        ),
        Check("disk", partial(check_disk, settings.inputs_max_bytes)),
        Check("workers", partial(check_workers, servers), (_BROKER,)),
    ]
    if not render:
        return checks
    directly = partial(render_directly, comfyui)
    checks.append(
        Check("render", directly, (_COMFYUI, _NODES), seconds=RENDER_SECONDS + _MORE_SECONDS)
    )
    if isinstance(store, ObjectStore):
        by_queue = partial(render_by_queue, servers, store)
        needs = (_BROKER, _RESULTS, _STORE, "workers")
        checks.append(Check("job", by_queue, needs, seconds=JOB_SECONDS + _MORE_SECONDS))
    return checks
