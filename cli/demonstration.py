"""`make demo`: the whole way from `send_task` to files in the store, before your eyes."""

import os
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from celery import Celery
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from cli.errors import CommandError
from cli.graphs import runnable_graph
from sandbox.processes import ChildProcess
from sandbox.stack import LOOPBACK, Stack
from settings import load
from tasks import TASK_NAME
from workers.bootstrap.clients import comfyui_client

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
    id: str


def run_demo(output: Path) -> None:
    """Run the demo and leave the images in the folder `output`.

    With `COMFYUI_URL` set it runs on that server instead of the stand-in.

    Raises:
        CommandError: a job failed.
        tasks.JobError: the server that `COMFYUI_URL` names cannot be used.
    """
    console = Console()
    began = time.monotonic()
    settings = load()
    # Now, as nobody wants to hear of it after all renders.
    output.mkdir(parents=True, exist_ok=True)
    console.print("Starting Valkey, SeaweedFS, ComfyUI and a worker ...")
    os.environ.update(LOOPBACK)
    with Stack(settings.own_comfyui_url) as stack:
        server = settings.model_copy(update={"comfyui_url": stack.comfyui_url})
        with comfyui_client(server) as comfyui:
            object_info = comfyui.object_info("CheckpointLoaderSimple")
        # Celery prefers these variables to whatever an app is given.
        os.environ.update(stack.environment())
        for variable in ("AWS_SESSION_TOKEN", "AWS_PROFILE"):
            os.environ.pop(variable, None)
        worker = stack.worker()
        # A bare client, as any service has one: it knows nothing of comfyfleet but two names.
        bare = Celery()
        jobs = _enqueue(bare, object_info)
        results = _follow(console, bare, jobs, worker)
        saved = _save(stack, results, output)
        console.print(_table(results))
        console.print(f"{len(saved)} images saved in {output}/")
    console.print(f"Everything stopped; {time.monotonic() - began:.1f} s in all.")


def _enqueue(bare: Celery, object_info: dict[str, Any]) -> list[_Job]:
    jobs = []
    for label, prompt in [("single", _SINGLE), *((f"batch {n}", p) for n, p in enumerate(_BATCH))]:
        workflow = runnable_graph(object_info, prompt, seed=random.randrange(2**32))  # noqa: S311
        handle = bare.send_task(TASK_NAME, kwargs={"workflow": workflow}, queue="comfyui")
        jobs.append(_Job(label, handle.id))
    return jobs


def _follow(
    console: Console, bare: Celery, jobs: list[_Job], worker: ChildProcess
) -> dict[str, dict[str, Any]]:
    columns = (
        TextColumn("{task.fields[label]:8}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
    )
    results: dict[str, dict[str, Any]] = {}
    deadline = time.monotonic() + _PATIENCE_SECONDS
    with Progress(*columns, console=console) as bars:
        bar_of = {job.id: bars.add_task("waiting", total=1.0, label=job.label) for job in jobs}
        while len(results) < len(jobs):
            if time.monotonic() > deadline or worker.returncode is not None:
                raise CommandError(f"the jobs do not end; the worker says:\n{worker.tail()}")
            for job in jobs:
                # State and progress in one look: between two of them the job may end.
                meta = bare.backend.get_task_meta(job.id)
                share, what = _progress(meta)
                bars.update(bar_of[job.id], completed=share, description=what)
                if meta["status"] == "SUCCESS":
                    results[job.label] = meta["result"]
                elif meta["status"] == "FAILURE":
                    raise CommandError(f"job {job.label} failed: {meta['result']}")
            time.sleep(_LOOK_SECONDS)
    return {job.label: results[job.label] for job in jobs}


def _progress(meta: dict[str, Any]) -> tuple[float | None, str]:
    match meta["status"], meta["result"]:
        case "SUCCESS", _:
            return 1.0, "done"
        case "PROGRESS", progress:
            steps = f" {progress['step']}/{progress['steps']}" if progress["steps"] else ""
            return progress["value"], (progress["class_type"] or progress["stage"]) + steps
        case state, _:
            return None, state.lower()


def _save(stack: Stack, results: dict[str, dict[str, Any]], output: Path) -> list[Path]:
    store = boto3.client(
        "s3",
        endpoint_url=stack.seaweedfs.url,
        aws_access_key_id=stack.seaweedfs.credentials["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=stack.seaweedfs.credentials["AWS_SECRET_ACCESS_KEY"],
        region_name=stack.seaweedfs.credentials["AWS_DEFAULT_REGION"],
    )
    saved = []
    for label, result in results.items():
        for item in result["outputs"]:
            path = output / f"{label.replace(' ', '-')}-{item['filename']}"
            store.download_file(item["bucket"], item["key"], str(path))
            saved.append(path)
    return saved


def _table(results: dict[str, dict[str, Any]]) -> Table:
    table = Table("job", "node", "file", "size", "S3 key")
    table.columns[-1].overflow = "fold"
    for label, result in results.items():
        for item in result["outputs"]:
            size = f"{item['size_bytes'] / 1000:.1f} kB"
            table.add_row(label, item["node_id"], item["filename"], size, item["key"])
    return table
