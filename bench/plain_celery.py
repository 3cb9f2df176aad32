"""The plain Celery task that one would write first: `celery -A bench.plain_celery worker`."""

import os
from functools import cache
from typing import TYPE_CHECKING

import boto3
from celery import Celery

from bench.guide import do_job
from bench.model import Workflow

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

TASK = "bench.plain"

app = Celery("plain")
app.conf.update(
    task_acks_late=True,
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
)


@app.task(name=TASK)  # type: ignore[untyped-decorator]  # celery has no types
def plain(workflow: Workflow) -> dict[str, str]:
    """Do a job on the server that `COMFYUI_URL` names."""
    server = os.environ["COMFYUI_URL"]
    return {"instance": server, "prompt_id": do_job(server, workflow, _put)}


def _put(key: str, content: bytes) -> None:
    _s3().put_object(Bucket=os.environ["S3_BUCKET"], Key=key, Body=content)


@cache
def _s3() -> "S3Client":
    # One for all threads, as boto3 recommends.
    return boto3.client("s3", endpoint_url=os.environ["S3_ENDPOINT_URL"])
