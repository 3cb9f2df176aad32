"""Where `celery -A workers` finds its app."""

from celery import Celery

from settings import SettingsError, load
from tasks.app import app as shared_app
from workers.broker.envelopes import guard_envelopes
from workers.lifecycle.worker import Worker, leave
from workers.task import RunWorkflow


def worker_app() -> Celery:
    """The shared app as workers run it: with the task's body and our worker."""
    try:
        load()
    except SettingsError as error:
        leave(error)
    guard_envelopes()
    shared_app.conf.worker_consumer = "workers.broker.consumer:Consumer"
    shared_app.conf.worker_pool = "workers.broker.threads:TaskPool"
    shared_app.Worker = shared_app.subclass_with_self(Worker)
    shared_app.register_task(RunWorkflow())
    return shared_app


app = worker_app()
