"""The Celery app that producers and workers share."""

from typing import Any

from celery import Celery

from settings import load
from settings.celery import celery_options
from tasks.signing import sign_tasks

TASK_NAME = "comfyui.run_workflow"


def _options() -> dict[str, Any]:
    return celery_options(load())


app = Celery("comfyfleet")
# A callable: the environment is read when the app is first used, not when this is imported.
app.add_defaults(_options)
sign_tasks(TASK_NAME)
