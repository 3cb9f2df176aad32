"""Where `celery -A workers` finds its app."""

from celery import Celery

from settings import SettingsError, load
from settings.celery import worker_options
from tasks.app import app as shared_app
from workers.broker import transport
from workers.broker.gate import Gate
from workers.broker.heartbeat import Heartbeat
from workers.broker.pulse import LoopPulse
from workers.broker.rabbitmq import transport as rabbitmq_transport
from workers.broker.rabbitmq.lookout import Lookout
from workers.broker.registration import use_transports
from workers.broker.sharing import Sharing
from workers.broker.signing import sign_followers
from workers.broker.survivors import Survivors
from workers.lifecycle.starting import leave
from workers.lifecycle.worker import Worker
from workers.task import RunWorkflow


def worker_app() -> Celery:
    """The shared app as workers run it: with the task's body and our worker."""
    try:
        settings = load()
    except SettingsError as error:
        leave(error)
    ours = rabbitmq_transport if settings.on_rabbitmq else transport
    use_transports(
        ours.TRANSPORTS,
        # Three of the largest files in `data:` URLs, which take a third more than by themselves.
        most_body_bytes=settings.workflow_max_bytes + 4 * settings.inputs_max_bytes,
        # A workflow has some dozen characters a value, no less than four.
        most_body_values=settings.workflow_max_bytes // 4,
    )
    shared_app.conf.update(worker_options(settings))
    shared_app.loader.override_backends = {
        **dict.fromkeys(("redis", "rediss"), "workers.broker.results:Backend"),
        "sentinel": "workers.broker.results:SentinelBackend",
    }
    shared_app.conf.worker_consumer = "workers.broker.consumer:Consumer"
    if settings.on_rabbitmq:
        shared_app.events.dispatcher_cls = "workers.broker.rabbitmq.events:Dispatcher"
    shared_app.conf.worker_pool = "workers.broker.threads:TaskPool"
    shared_app.steps["consumer"].update((Survivors, Heartbeat, Sharing, Lookout, Gate, LoopPulse))
    shared_app.Worker = shared_app.subclass_with_self(Worker)
    shared_app.register_task(RunWorkflow())
    sign_followers()
    return shared_app


app = worker_app()
