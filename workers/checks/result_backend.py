"""Whether results can be stored, and found again."""

import uuid
from typing import Any

from celery import Celery

from settings.masking import without_password
from tasks.request import label
from workers.checks.finding import Judgement, fail, ok

_RESULT = {"comfyfleet": "doctor"}


def check_result_backend(app: Celery, url: str) -> Judgement:
    """Whether a result of no job comes back.

    Args:
        app: that producers use.
        url: of the result backend, for people.
    """
    name = f"CELERY_RESULT_BACKEND ({without_password(url)})"
    result_id = f"comfyfleet-doctor-{uuid.uuid4()}"
    try:
        backend: Any = app.backend
        backend.store_result(result_id, _RESULT, "SUCCESS")
        found = backend.get_task_meta(result_id).get("result")
        backend.forget(result_id)
    except ModuleNotFoundError as error:
        return fail(
            f"{name} is of a kind that Celery does not know, or needs {label(error.name or '?')}, "
            "which is not installed",
            "install what Celery's documentation names for it, or correct CELERY_RESULT_BACKEND",
        )
    except Exception as error:  # noqa: BLE001  # each backend has errors of its own
        return fail(
            f"{name} does not keep results ({type(error).__name__})",
            "start it, or correct CELERY_RESULT_BACKEND; unset, it is the broker",
        )
    if found != _RESULT:
        return fail(
            f"{name} does not give back the result that it was given",
            "use a backend that keeps results until they expire: Redis, or a database",
        )
    return ok("results are stored, and found again")
