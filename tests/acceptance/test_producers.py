"""What producers do: without our code, with it, and without even Celery."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox.stack import Stack
from tests.stack import Client, bars

pytestmark = pytest.mark.acceptance

ROOT = Path(__file__).parents[2]

# Run as a program: any import of ours fails, as on a machine that does not have it.
BARE = """
import sys

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("settings", "tasks", "workers", "cli", "sandbox"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, NotInstalled())

import json
from celery import Celery, group

app = Celery()
jobs = [
    app.send_task("comfyui.run_workflow", kwargs={"workflow": workflow}, queue="comfyui")
    for workflow in json.load(sys.stdin)
]
print(json.dumps([job.get(timeout=60) for job in jobs]))
failed = app.send_task("comfyui.run_workflow", kwargs={"workflow": {}}, queue="comfyui")
error = failed.get(timeout=60, propagate=False)
print(json.dumps([type(error).__name__, str(error)]))
"""


def own_queue(stack: Stack, database: int) -> dict[str, str]:
    """A Redis database of a test's own: no worker of another test takes its jobs."""
    broker = stack.valkey.url.replace("/0", f"/{database}")
    return {"CELERY_BROKER_URL": broker, "CELERY_RESULT_BACKEND": broker}


def test_ten_jobs_of_a_bare_client_on_two_servers(stack: Stack, client: Client) -> None:
    own = own_queue(stack, 2)
    servers = [stack.stand_in(version) for version in ("0.3.64", "0.8.0")]
    workers = [stack.worker(server.url, own) for server in servers]
    done = subprocess.run(
        [sys.executable, "-c", BARE],
        input=json.dumps([bars(seed, seconds=0.5) for seed in range(10)]),
        env={"PATH": "/usr/bin:/bin", **own},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results, failure = map(json.loads, done.stdout.splitlines())
    assert len({result["job_id"] for result in results}) == 10
    assert {result["instance"] for result in results} == {server.url for server in servers}
    assert sum(len(server.executions()) for server in servers) == 10
    for result in results:
        for output in result["outputs"]:
            content = client.content(output["key"])
            assert hashlib.sha256(content).hexdigest() == output["sha256"]
    assert failure == ["InvalidWorkflowError", "the workflow is empty: it has no node"]
    for worker in workers:
        worker.stop()
        assert worker.returncode == 0


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize(
    "example", ["bare_celery.py", "typed_enqueue.py", "raw_message.py", "batch.py"]
)
def test_each_example_runs(stack: Stack, client: Client, example: str) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / example],
        env={"PATH": "/usr/bin:/bin", **stack.environment()},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    if example == "typed_enqueue.py":
        name, media_type, size, url = last.split()
        assert (name.startswith("example_"), media_type) == (True, "image/png")
        assert int(size) > 0
        assert "/examples/" in url
    else:
        uri, digest = last.split()
        content = client.content(uri.removeprefix(f"s3://{client.bucket}/"))
        assert hashlib.sha256(content).hexdigest() == digest


def test_the_example_without_a_queue_runs(stack: Stack, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "direct.py"],
        # A server is all that it needs.
        env={"PATH": "/usr/bin:/bin", "COMFYUI_URL": stack.comfyui_url, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    node_id, kind, path = done.stdout.splitlines()[-1].split()
    assert (node_id, kind) == ("3", "images")
    assert (tmp_path / path).read_bytes().startswith(b"\x89PNG")


def test_importing_the_producers_side_loads_neither_worker_code_nor_boto() -> None:
    heavy = ("workers", "boto3", "botocore", "requests", "websocket", "opentelemetry")
    code = f"import tasks, sys; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.strip() == "[]"
