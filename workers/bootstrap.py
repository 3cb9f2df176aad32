"""The composition root: the one place where clients are made and put together."""

import os
import ssl
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache, partial
from urllib.parse import urlsplit

import boto3
import certifi
import redis
from botocore.config import Config
from botocore.handlers import add_expect_header
from celery.utils.nodenames import gethostname
from redis.backoff import NoBackoff
from redis.retry import Retry

from settings import Settings
from settings.bounds import MOST_SECONDS
from settings.secrets import webhook_keys
from workers.checks.storage import judge_date, judge_error
from workers.comfyui import ComfyUI, Notifications
from workers.execution import Custody, Endings, Executor, Keeper, Limits, Takeover
from workers.execution.control import ServerLost, WorkerLeaving, unshared
from workers.execution.manifests import Manifests
from workers.execution.node_policy import NodePolicy
from workers.execution.output_bounds import MostOutput
from workers.execution.place import Place
from workers.execution.removal import Removal
from workers.inputs import Inputs, Sources
from workers.ledger import Ledger
from workers.ledger.connection import connect
from workers.ledger.pins import Pins
from workers.ledger.servers import Servers
from workers.lifecycle.circuit import Circuit
from workers.lifecycle.leaving import Leaving
from workers.lifecycle.moving import Moving
from workers.lifecycle.pinned import Pinned
from workers.lifecycle.pinning import Pinning
from workers.lifecycle.presence import Presence
from workers.lifecycle.probing import PROBE_SECONDS, answering
from workers.lifecycle.spare import Spare
from workers.lifecycle.store_watch import StoreWatch
from workers.lifecycle.telling import Telling
from workers.logs.story import tell as tell_story
from workers.observing import Observe, Observers
from workers.observing.stories import StoryLines
from workers.routing.pace import Pace
from workers.routing.router import Router
from workers.routing.survey import Survey
from workers.storage import ObjectStore
from workers.storage.probe import Conditions
from workers.storage.seam import translated
from workers.tracing import Traces, traces
from workers.web import OpenHosts, Web
from workers.webhooks import Courier, Notices, Webhooks

# Files that are stored at the same time, for each slot.
_UPLOADS_PER_SLOT = 2
# The spine's thread, its uploads and their parts, for each slot.
_CONNECTIONS_PER_SLOT = 4


# Seconds for a receiver to answer a webhook.
_WEBHOOK_SECONDS = 10.0


@dataclass(frozen=True)
class Parts:
    """What a worker process holds open."""

    comfyui: ComfyUI
    notifications: Notifications
    circuit: Circuit
    store_watch: StoreWatch
    store: ObjectStore
    uploaders: ThreadPoolExecutor
    ledger: Ledger
    servers: Servers
    survey: Survey
    router: Router
    keeper: Keeper
    custody: Custody
    takes_jobs: Callable[[], bool]
    leaving: Leaving
    moving: Moving | None
    courier: Courier
    telling: Telling
    observe: Observe
    traces: Traces

    def start(self) -> None:
        """Listen to ComfyUI and begin to keep what will be claimed."""
        self.traces.start()
        self.notifications.start()
        self.circuit.start()
        self.store_watch.start()
        self.survey.start()
        self.keeper.start()
        if self.moving is not None:
            self.moving.start()
        self.courier.start()
        self.telling.start()

    def close(self) -> None:
        """Close everything, the listeners first."""
        with ExitStack() as closing:
            closing.callback(self.traces.close)
            closing.callback(self.ledger.close)
            closing.callback(self.telling.stop)
            closing.callback(self.servers.close)
            closing.callback(self.store.close)
            closing.callback(self.uploaders.shutdown, wait=False, cancel_futures=True)
            closing.callback(self.comfyui.close)
            closing.callback(self.keeper.stop)
            closing.callback(self.router.forget_loaded)
            closing.callback(self.survey.stop)
            closing.callback(self.store_watch.stop)
            closing.callback(self.circuit.stop)
            closing.callback(self.notifications.stop)
            if self.moving is not None:
                closing.callback(self.moving.stop)
            closing.callback(self.courier.stop)


def node_name(settings: Settings) -> str:
    """The worker's name: unique as each worker on a host has a server of its own, or says so."""
    instance = urlsplit(settings.comfyui_url)
    place = f"{instance.hostname}-{instance.port or instance.scheme}{instance.path}"
    shared = f"-{os.getpid()}" if settings.comfyui_shared else ""
    return f"{place.replace('/', '-')}{shared}@{gethostname()}"


def pinning(settings: Settings, name: str | None, on_wait: Callable[[], None]) -> Pinning:
    """What finds a server for a worker, which has this name or one that follows its server."""

    def name_at(url: str) -> str:
        return name or node_name(pinned_to(settings, url))

    return Pinning(
        Pins(settings.ledger_url),
        settings.comfyui_servers,
        name=name_at,
        answering=partial(answering, client=partial(comfyui_client, _hasty(settings))),
        on_wait=on_wait,
    )


def spare_of(settings: Settings) -> Spare:
    """What tells of this process while it waits for a server."""
    return Spare(Ledger(settings.ledger_url), settings.worker_slots)


def pinned_to(settings: Settings, url: str) -> Settings:
    """The settings of a worker that drives this server."""
    return settings.model_copy(update={"comfyui_url": url})


def _hasty(settings: Settings) -> Settings:
    """The same for a server that answers at once or does not count."""
    names = ("comfyui_connect_timeout_seconds", "comfyui_read_timeout_seconds")
    return settings.model_copy(
        update={name: min(getattr(settings, name), PROBE_SECONDS) for name in names}
    )


def assemble(
    settings: Settings,
    worker: str,
    *observers: Observe,
    pinned: Pinned | None = None,
    is_another_free: Callable[[str], bool] | None = None,
) -> Parts:
    """Make and connect the parts of a worker; nothing is opened or started yet.

    Args:
        settings: of a worker that drives `COMFYUI_URL`.
        worker: its name.
        observers: those who watch its jobs.
        pinned: the lease on that server; without one others may drive it, too.
        is_another_free: whether a server beside the one with this URL can be had.
    """
    connections = settings.worker_slots * _CONNECTIONS_PER_SLOT
    comfyui = comfyui_client(settings, connections=connections)

    def listener(client_id: str, **callbacks: Callable[[], None]) -> Notifications:
        return Notifications(
            settings.comfyui_url,
            client_id,
            headers=comfyui.headers,
            timeout=settings.comfyui_connect_timeout_seconds,
            **callbacks,
        )

    def listen_as(client_id: str) -> Notifications:
        # What is heard of an adopted prompt is a sign of life for those behind it.
        return listener(client_id, on_heard=notifications.hear)

    def server_at(url: str) -> ComfyUI:
        return comfyui_client(settings, url)

    circuit = Circuit(comfyui)
    # Of two sockets with one client id the older one hears nothing, even when the newer one is
    # gone: a worker started again must not meet what is left of the one before.
    notifications = listener(f"{worker}-{uuid.uuid4().hex[:8]}", on_failure=circuit.suspect)
    store, conditions, store_watch = _watched_store(settings, connections)
    uploaders = ThreadPoolExecutor(settings.worker_slots * _UPLOADS_PER_SLOT, "upload")
    ledger = Ledger(settings.ledger_url, keep_seconds=settings.result_expires_seconds)
    place = Place.of(settings.comfyui_url)

    def takes_jobs() -> bool:
        return circuit.closed and store_watch.closed and not leaving.begun

    servers = Servers(settings.ledger_url)
    survey = Survey(
        comfyui,
        servers,
        place.key,
        worker=worker,
        takes_jobs=takes_jobs,
        answers=lambda: circuit.answers,
    )
    pace = Pace()
    router = Router(
        servers=servers,
        survey=survey,
        pace=pace,
        place=place.key,
        is_idle=lambda: keeper.is_idle,
        # In RabbitMQ there is no telling how long a job has waited in a lane.
        wait_seconds=0.0 if settings.on_rabbitmq else settings.warm_wait_seconds,
    )
    keeper = Keeper(
        ledger,
        place.key,
        pace=pace,
        takes_jobs=takes_jobs,
        is_tired=lambda: router.tired,
        server_answers=lambda: circuit.answers,
        stop_prompt=comfyui.try_cancel,
    )

    def begin_anew(closed: bool) -> None:
        keeper.nudge()
        router.forget_loaded()
        if closed:
            # It may be another server now.
            survey.renew()

    circuit.subscribe(begin_anew)
    store_watch.subscribe(lambda _: keeper.nudge())
    telemetry = traces(settings, worker)
    leaving = Leaving(keeper, settings.shutdown_grace_seconds)

    def lose_server() -> None:
        # It is another worker's to tell of the server, and there is no time for what runs there.
        survey.stop()
        leaving.begin_anew(ServerLost("another worker drives its server now"), grace_seconds=0.0)

    if pinned is not None:
        pinned.subscribe(lose_server)
    moving = None
    if is_another_free is not None:
        moving = Moving(
            answers=lambda: circuit.answers,
            is_another_free=partial(is_another_free, settings.comfyui_url),
            move=partial(leaving.begin_anew, WorkerLeaving("its server is down")),
        )
    stories = StoryLines(worker)
    presence = Presence(
        keeper,
        (circuit, store_watch),
        id=notifications.client_id,
        worker=worker,
        instance=settings.comfyui_url,
        slots=settings.worker_slots,
        is_leaving=lambda: leaving.begun,
        comfyui_version=lambda: survey.version,
    )
    # The first one so that the lines of the logged story name the trace.
    observe = Observers(telemetry.observe, tell_story, stories, presence, *observers)
    removal = Removal(store, settings.s3_patience_seconds)
    nodes = NodePolicy(settings.allowed_nodes, settings.denied_nodes)
    executor = Executor(
        comfyui=comfyui,
        notifications=notifications,
        listen_as=listen_as,
        server_at=server_at,
        breaker=circuit,
        confirm_server=pinned.confirm if pinned is not None else unshared,
        keeper=keeper,
        store=store,
        manifests=Manifests(store, ledger, keeper, takes_conditions=conditions.are_taken),
        removal=removal,
        inputs=Inputs(
            comfyui=comfyui,
            sources=sources(settings, store),
            max_bytes=settings.inputs_max_bytes,
            max_total_bytes=settings.inputs_max_total_bytes,
            max_count=settings.inputs_max_count,
        ),
        refuse_parts=router.refuse_parts,
        object_info=survey.object_info,
        uploaders=uploaders,
        worker=worker,
        prefix=settings.s3_prefix,
        workflow_max_bytes=settings.workflow_max_bytes,
        nodes=nodes,
        most_output=MostOutput(settings.outputs_max_count, settings.outputs_max_bytes),
        stall_seconds=settings.stall_seconds,
        s3_patience_seconds=settings.s3_patience_seconds,
        observe=observe,
    )
    courier = Courier(
        ledger.outbox,
        web(settings.webhook_allow_hosts, _WEBHOOK_SECONDS),
        webhook_keys(settings.webhook_secret),
        observe=observe,
    )
    webhooks = Webhooks(Notices(signed=bool(settings.webhook_secret)), ledger.outbox, courier.nudge)
    custody = Custody(
        ledger=ledger,
        keeper=keeper,
        executor=executor,
        removal=removal,
        router=router,
        takeover=Takeover(ledger=ledger, comfyui=comfyui, server_at=server_at, place=place),
        comfyui=comfyui,
        takes_jobs=takes_jobs,
        place=place,
        client_id=notifications.client_id,
        limits=Limits(
            *(settings.max_attempts, settings.max_crashes, settings.workflow_max_bytes),
            nodes=nodes,
        ),
        webhooks=webhooks,
        endings=Endings(ledger, webhooks, observe),
        observe=observe,
    )
    return Parts(
        comfyui=comfyui,
        notifications=notifications,
        circuit=circuit,
        store_watch=store_watch,
        store=store,
        uploaders=uploaders,
        ledger=ledger,
        servers=servers,
        survey=survey,
        router=router,
        keeper=keeper,
        custody=custody,
        takes_jobs=takes_jobs,
        leaving=leaving,
        moving=moving,
        courier=courier,
        telling=Telling(Ledger(settings.ledger_url), presence, stories),
        observe=observe,
        traces=telemetry,
    )


def _watched_store(
    settings: Settings, connections: int
) -> tuple[ObjectStore, Conditions, StoreWatch]:
    def on_denied() -> None:
        watch.suspect()

    store = object_store(settings, connections, on_denied=on_denied)
    # Over the same connections, and nobody is told of what the watch itself is denied.
    conditions = Conditions(store.beside(store.bucket), settings.s3_prefix)
    watch = StoreWatch(
        lambda: judge_date(conditions.look().date),
        lambda error: judge_error(error, store, settings.s3_endpoint_url),
    )
    return store, conditions, watch


def redis_client(url: str, seconds: float) -> redis.Redis:
    """A client of a Redis server that tries once, and waits so many seconds for each answer."""
    return connect(
        url, socket_timeout=seconds, socket_connect_timeout=seconds, retry=Retry(NoBackoff(), 0)
    )


def comfyui_client(
    settings: Settings,
    url: str | None = None,
    *,
    connections: int = 4,
    most_seconds: float = MOST_SECONDS,
) -> ComfyUI:
    """A client of the worker's ComfyUI server, or of another one of the fleet.

    Args:
        settings: of the worker.
        url: of another server than the worker's.
        connections: that are kept alive.
        most_seconds: to wait for a connection, or the next bytes, whatever the settings say.
    """
    headers = settings.comfyui_headers
    return ComfyUI(
        url or settings.comfyui_url,
        headers={name: value.get_secret_value() for name, value in headers.items()},
        connect_timeout=min(settings.comfyui_connect_timeout_seconds, most_seconds),
        read_timeout=min(settings.comfyui_read_timeout_seconds, most_seconds),
        connections=connections,
    )


def sources(settings: Settings, store: ObjectStore) -> Sources:
    """Where inputs may come from."""
    stores = {name: store.beside(name) for name in settings.input_buckets}
    asked = web(settings.input_allow_hosts, settings.inputs_timeout_seconds)
    return Sources(stores={**stores, store.bucket: store}, web=asked)


def web(opened: Iterable[str], timeout: float) -> Web:
    """The public web and the hosts that are opened beside it; a timeout in seconds for each URL."""
    return Web(opened=OpenHosts.of(opened), timeout=timeout, tls=_believed)


@cache
def _believed() -> ssl.SSLContext:
    # What the system believes, and what comes with the HTTP library where the system has nothing.
    tls = ssl.create_default_context()
    tls.load_verify_locations(certifi.where())
    return tls


def object_store(
    settings: Settings,
    connections: int = 4,
    *,
    patient: bool = True,
    on_denied: Callable[[], object] = lambda: None,
) -> ObjectStore:
    """A client of the bucket; credentials and region come from boto3's own chain.

    Args:
        settings: of the worker.
        connections: that are kept alive.
        patient: whether it waits for long, and tries again.
        on_denied: called whenever the bucket was not there, or not ours to write.

    Raises:
        StorageDeniedError, StorageUnavailableError: what boto3's chain finds is no configuration.
    """
    with translated(settings.s3_bucket):
        client = boto3.client(
            "s3",
            endpoint_url=settings.s3_endpoint_url,
            config=Config(
                signature_version="s3v4",
                connect_timeout=5 if patient else 2,
                read_timeout=30 if patient else 4,
                # Beyond these it is the uploader who has the patience, and can be interrupted.
                retries={"mode": "standard", "max_attempts": 3 if patient else 1},
                max_pool_connections=connections,
                tcp_keepalive=True,
                # Stores other than AWS know only the checksums that a request needs.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                # And most are reached by one host name for all buckets.
                s3={"addressing_style": "path" if settings.s3_endpoint_url else "auto"},
            ),
        )
    # What is sent is not asked for first whether it is welcome: that costs a round trip.
    client.meta.events.unregister("before-call.s3", add_expect_header)
    return ObjectStore(client, settings.s3_bucket, on_denied=on_denied)
