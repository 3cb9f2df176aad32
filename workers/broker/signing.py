"""What a worker signs: it sends what others put into messages, who need not have the secret."""

from typing import Any

from celery import current_task
from celery.signals import before_task_publish

from tasks.app import TASK_NAME
from tasks.signing import sign_no_tasks, sign_published
from workers.broker.consumer import IS_SIGNED


def sign_followers() -> None:
    """Have this process sign only jobs that follow a signed one, such as the next of its chain."""
    sign_no_tasks(TASK_NAME)
    before_task_publish.connect(_sign, sender=TASK_NAME, weak=False)


def _sign(**message: Any) -> None:
    # Of other tasks than ours this field is whatever a header says.
    if current_task and current_task.name == TASK_NAME and current_task.request.get(IS_SIGNED):
        sign_published(**message)
