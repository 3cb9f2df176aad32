"""A tiny render, on the server itself and as a job of the queue."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from celery.exceptions import TimeoutError as NoResult

from tasks.enqueue import enqueue
from tasks.errors import JobError, NodeForbiddenError
from tasks.result import Progress
from workers.checks.finding import Judgement, fail, ok, skipped, warn
from workers.comfyui import ComfyUI
from workers.ledger.servers import Servers
from workers.storage import ObjectStore

# Seconds that a render may wait for others before it is given up.
RENDER_SECONDS = 30.0
JOB_SECONDS = 60.0

_FOLDER = "comfyfleet-doctor"


class _Late(Exception):  # noqa: N818  # no error: others go first
    """It has waited long enough."""


def tiny() -> dict[str, Any]:
    """A workflow that every ComfyUI can execute at once, with no result in its cache."""
    return {
        "1": {
            "class_type": "EmptyImage",
            "inputs": {
                "width": 64,
                "height": 64,
                "batch_size": 1,
                "color": time.time_ns() // 1000 % 0x1000000,
            },
        },
        # What is only shown leaves no file in the server's output folder.
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }


def render_directly(comfyui: ComfyUI, seconds: float = RENDER_SECONDS) -> Judgement:
    """Whether the server renders; what it made goes with its temporary files."""
    until = time.monotonic() + seconds
    try:
        with tempfile.TemporaryDirectory() as folder:
            done = comfyui.execute(
                tiny(),
                Path(folder),
                timeout=seconds,
                include_temp=True,
                on_progress=_until(until),
            )
            count = len(done.files)
        comfyui.delete_history([done.prompt_id])
    except _Late:
        return warn(
            f"ComfyUI at {comfyui.base_url} has other prompts: the tiny render was taken out of "
            f"its queue after {seconds:g} s",
            "try again when it has nothing to do",
        )
    except (JobError, OSError) as error:
        return fail(
            f"the tiny render failed: {error}", "look at the log of ComfyUI for what it says of it"
        )
    if not count:
        return fail(
            f"ComfyUI at {comfyui.base_url} has rendered nothing", "look at the log of ComfyUI"
        )
    return ok("ComfyUI renders")


def _until(moment: float) -> Callable[[Progress], None]:
    def check(progress: Progress) -> None:
        if progress.stage == "queued" and time.monotonic() > moment:
            raise _Late

    return check


def render_by_queue(
    open_servers: Callable[[], Servers], store: ObjectStore, seconds: float = JOB_SECONDS
) -> Judgement:
    """Whether a job gets from the queue to the store; nothing of it is left."""
    try:
        with open_servers() as servers:
            if not any(one.takes_jobs for one in servers.live()):
                return skipped("no job was enqueued, as no live server takes jobs")
        job = enqueue(
            tiny(),
            output={"prefix": _FOLDER, "include_temp": True},
            timeout_seconds=seconds,
            priority="urgent",
            expires=seconds,
        )
    except Exception as error:  # noqa: BLE001  # broker and backend have errors of their own
        return fail(
            f"a job cannot be enqueued ({type(error).__name__})", "see what is said of the broker"
        )
    try:
        result = job.get(timeout=seconds, propagate=False)
    except NoResult:
        job.revoke(terminate=True)
        return warn(
            f"a tiny job had no result after {seconds:g} s, and was cancelled",
            "see whether the workers are busy (comfyfleet check FILE), or in their logs",
        )
    except Exception as error:  # noqa: BLE001  # each backend has errors of its own
        return fail(
            f"the result of a job cannot be read ({type(error).__name__})",
            "see what is said of the result backend",
        )
    return _judged(result, store, job.forget)


def _judged(result: Any, store: ObjectStore, forget: Callable[[], object]) -> Judgement:
    forget()
    if isinstance(result, NodeForbiddenError):
        # As they are meant to: a fleet that allows few nodes is well.
        return ok(f"a worker had the tiny job and refused it, as it is to: {result}")
    if isinstance(result, Exception):
        kind = type(result).__name__
        return fail(f"a tiny job failed: {kind}: {result}", "see the log of the worker that had it")
    bucket, key = result["manifest"]["bucket"], result["manifest"]["key"]
    if bucket != store.bucket:
        return warn(
            f"workers store in bucket {bucket!r}, S3_BUCKET here is {store.bucket!r}",
            "give workers and this command the same S3_BUCKET",
        )
    try:
        if store.get(key) is None:
            return fail(
                f"the manifest of a tiny job is not in bucket {bucket!r}",
                "give workers and this command the same S3_ENDPOINT_URL",
            )
        store.delete_folder(key.rpartition("/")[0])
    except JobError as error:
        return warn(
            f"a job was done, but what it has stored is still there: {error}",
            f"remove {key.rpartition('/')[0]}/",
        )
    seconds = result["timings"]["queued"] + result["timings"]["total"]
    return ok(f"a job went from the queue to the store in {seconds:.1f} s, on {result['instance']}")
