"""`make demo`: the whole way from `send_task` to files in the store, before your eyes."""

import os
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from celery import Celery
from celery.result import AsyncResult
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from cli.errors import CommandError
from cli.graphs import runnable_graph
from sandbox.processes import ChildProcess
from sandbox.stack import Stack
from tasks import TASK_NAME
from workers.comfyui import ComfyUI

_SINGLE = "a lighthouse at dawn, oil painting"
_BATCH = (
    "a red fox in the snow",
    "a glass greenhouse at night",
    "a paper boat on a mountain lake",
)
_LOOK_SECONDS = 0.1
# A real server may have to load a checkpoint first.
_PATIENCE_SECONDS = 600.0


@dataclass(frozen=True)
class _Job:
    label: str
    handle: AsyncResult[Any]


def run_demo(output: Path) -> None:
    """Run the demo and leave the images in the folder `output`.

    With `COMFYUI_URL` set it runs on that server instead of the stand-in.

    Raises:
        CommandError: a job failed.
        tasks.JobError: the server that `COMFYUI_URL` names cannot be used.
    """
    console = Console()
    began = time.monotonic()
    console.print("Starting Valkey, SeaweedFS, ComfyUI and a worker ...")
    with Stack(os.environ.get("COMFYUI_URL")) as stack:
        with ComfyUI(stack.comfyui_url) as comfyui:
            object_info = comfyui.object_info("CheckpointLoaderSimple")
        # Celery prefers these variables to whatever an app is given.
        os.environ.update(stack.environment())
        worker = stack.worker()
        jobs = _enqueue(object_info)
        _follow(console, jobs, worker)
        saved = _save(stack, jobs, output)
        console.print(_table(jobs))
        console.print(f"{len(saved)} images saved in {output}/")
    console.print(f"Everything stopped; {time.monotonic() - began:.1f} s in all.")


def _enqueue(object_info: dict[str, Any]) -> list[_Job]:
    # A bare client, as any service has one: it knows nothing of comfyfleet but two names.
    bare = Celery()
    jobs = []
    for label, prompt in [("single", _SINGLE), *((f"batch {n}", p) for n, p in enumerate(_BATCH))]:
        workflow = runnable_graph(object_info, prompt, seed=random.randrange(2**32))  # noqa: S311
        handle = bare.send_task(TASK_NAME, kwargs={"workflow": workflow}, queue="comfyui")
        jobs.append(_Job(label, handle))
    return jobs


def _follow(console: Console, jobs: list[_Job], worker: ChildProcess) -> None:
    columns = (
        TextColumn("{task.fields[label]:8}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
    )
    deadline = time.monotonic() + _PATIENCE_SECONDS
    with Progress(*columns, console=console) as bars:
        bar_of = {job.label: bars.add_task("waiting", total=1.0, label=job.label) for job in jobs}
        waiting = list(jobs)
        while waiting and time.monotonic() < deadline and worker.returncode is None:
            for job in list(waiting):
                state, info = job.handle.state, job.handle.info
                if state in ("SUCCESS", "FAILURE"):
                    waiting.remove(job)
                    share = 1.0 if state == "SUCCESS" else None
                    bars.update(bar_of[job.label], completed=share, description=state.lower())
                elif state == "PROGRESS":
                    what = info["class_type"] or info["stage"]
                    steps = f" {info['step']}/{info['steps']}" if info["steps"] else ""
                    bars.update(
                        bar_of[job.label], completed=info["value"], description=what + steps
                    )
            time.sleep(_LOOK_SECONDS)
    failed = next((job for job in jobs if job.handle.state != "SUCCESS"), None)
    if failed is not None:
        raise CommandError(
            f"job {failed.label}: {failed.handle.state}: {failed.handle.result}; "
            f"the worker's last lines:\n{worker.tail()}"
        )


def _save(stack: Stack, jobs: list[_Job], output: Path) -> list[Path]:
    output.mkdir(parents=True, exist_ok=True)
    store = boto3.client(
        "s3",
        endpoint_url=stack.seaweedfs.url,
        aws_access_key_id=stack.seaweedfs.credentials["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=stack.seaweedfs.credentials["AWS_SECRET_ACCESS_KEY"],
        region_name=stack.seaweedfs.credentials["AWS_DEFAULT_REGION"],
    )
    saved = []
    for job in jobs:
        for item in job.handle.result["outputs"]:
            path = output / f"{job.label.replace(' ', '-')}-{item['filename']}"
            store.download_file(item["bucket"], item["key"], str(path))
            saved.append(path)
    return saved


def _table(jobs: list[_Job]) -> Table:
    table = Table("job", "node", "file", "size", "S3 key")
    table.columns[-1].overflow = "fold"
    for job in jobs:
        for item in job.handle.result["outputs"]:
            size = f"{item['size_bytes'] / 1000:.1f} kB"
            table.add_row(job.label, item["node_id"], item["filename"], size, item["key"])
    return table
