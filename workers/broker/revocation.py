"""`revoke` as producers know it, made to last and to reach jobs that run in threads."""

from typing import Any, Protocol

from celery.utils.functional import maybe_list
from celery.worker import control
from celery.worker.control import Panel


class Canceller(Protocol):
    """What can cancel jobs."""

    def cancel(self, job_id: str, *, running: bool) -> None:
        """Keep a job from being begun; stop it `running` too."""


def follow_revocations(jobs: Canceller) -> None:
    """Have each `revoke` that reaches this worker recorded for all, and its running job stopped.

    Celery keeps revoked ids in the workers' memory, which is gone with the last of them, and cannot
    stop a thread.
    """

    def revoke(state: Any, task_id: Any, terminate: bool = False, **options: Any) -> Any:
        ids = set(maybe_list(task_id) or [])
        answer = control.revoke(state, list(ids), terminate=terminate, **options)
        for job_id in ids:
            jobs.cancel(str(job_id), running=terminate)
        return answer

    def terminate(state: Any, signal: Any, task_id: Any, **options: Any) -> Any:
        return revoke(state, task_id, terminate=True, signal=signal, **options)

    Panel.data["revoke"] = revoke
    Panel.data["terminate"] = terminate
