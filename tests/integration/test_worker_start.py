"""`celery -A workers worker` with right and with wrong settings."""

import subprocess
import sys
from pathlib import Path

import pytest

from sandbox.processes import ChildProcess
from sandbox.stack import Stack
from sandbox.valkey import Valkey
from tests.faults.scenes import Fleet
from tests.integration.broken_stacks import PASSWORD, STACKS, Broken
from tests.stack import bars

pytestmark = pytest.mark.integration

CELERY = Path(sys.executable).with_name("celery")
COMFYFLEET = Path(sys.executable).with_name("comfyfleet")


def leave(command: list[str | Path], environment: dict[str, str]) -> tuple[int, str]:
    done = subprocess.run(
        command,
        env={"PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({}, "S3_BUCKET: found nothing, expected the name of the bucket"),
        ({"S3_BUCKET": "b", "WORKER_SLOTS": "x"}, "WORKER_SLOTS: found 'x', expected a valid int"),
        ({"S3_BUCKET": "b", "COMFYUI_URL": "gpu"}, "COMFYUI_URL: found 'gpu', expected an http://"),
    ],
)
def test_wrong_settings_end_the_worker_with_2_before_any_message(
    variables: dict[str, str], sentence: str
) -> None:
    code, printed = leave([CELERY, "-A", "workers", "worker"], variables)
    assert code == 2
    assert sentence in printed
    assert "Traceback" not in printed


def test_the_command_line_says_it_in_the_same_way() -> None:
    code, printed = leave([COMFYFLEET, "settings"], {"WORKER_SLOTS": "x"})
    assert (code, "Traceback" in printed) == (2, False)
    assert "WORKER_SLOTS: found 'x'" in printed


def test_pool_slots_and_name_need_no_flags(stack: Stack) -> None:
    server = stack.stand_in()
    worker = stack.worker(server.url, {"WORKER_SLOTS": "3"})
    printed = worker.log.read_text()
    assert ".> concurrency: 3 (threads)" in printed
    assert f" 127.0.0.1-{server.port}@" in printed
    worker.stop()
    assert worker.returncode == 0


@pytest.mark.usefixtures("running_worker")
def test_flags_win_over_what_we_choose_and_a_server_may_be_shared(stack: Stack) -> None:
    celery = [CELERY, "-A", "workers", "worker", "-n", "mine@%%h", "-l", "DEBUG"]
    log = stack.folder("worker") / "worker.log"
    worker = ChildProcess(celery, log, env={**stack.environment(), "COMFYUI_SHARED": "1"})
    try:
        worker.wait_until(lambda: " ready." in log.read_text())
        assert " mine@" in log.read_text()
        assert "DEBUG" in log.read_text()
    finally:
        worker.stop()
    assert worker.returncode == 0


@pytest.mark.parametrize(
    "broken", [STACKS["wrong Redis password"], STACKS["eviction on"]], ids=["password", "eviction"]
)
def test_what_cannot_become_well_ends_the_worker_with_2(
    stack: Stack, valkey: Valkey, broken: Broken
) -> None:
    with broken.breaking(stack, valkey) as variables:
        environment = {**stack.environment(), **variables}
        code, printed = leave([CELERY, "-A", "workers", "worker"], environment)
    assert code == 2, printed
    ((_, sentence),) = broken.finds.values()
    assert sentence in printed
    assert broken.fix in printed
    assert "Traceback" not in printed
    assert PASSWORD not in printed
    assert "wrong@" not in printed


def test_a_worker_that_waits_for_its_broker_names_it_and_the_fix(stack: Stack) -> None:
    worker = stack.launch_worker(settings={"CELERY_BROKER_URL": "redis://127.0.0.1:1/0"})
    worker.wait_until(lambda: "no server can be taken" in worker.log.read_text())
    said = worker.log.read_text()
    worker.stop()
    (line,) = [
        one for one in said.splitlines() if "CELERY_BROKER_URL (redis://127.0.0.1:1/0)" in one
    ]
    assert "cannot be connected" in line
    assert "(fix: start it, or correct host and port" in line


def test_no_job_is_taken_for_a_bucket_that_is_not_there(stack: Stack, seed: int) -> None:
    with Fleet(stack) as fleet:
        worker = fleet.worker(fleet.server(), S3_BUCKET="made-later", WORKER_SLOT="3")
        said = worker.log.read_text()
        assert "there is no bucket 'made-later'" in said
        assert "WORKER_SLOT is no setting, did you mean WORKER_SLOTS?" in said
        job = fleet.send(bars(seed))
        fleet.client.s3.create_bucket(Bucket="made-later")
        result = job.get(timeout=40)
        assert result["outputs"][0]["bucket"] == "made-later"
        said = worker.log.read_text()
        # Until then it was left in the queue, for others that may have a bucket.
        assert said.index("takes objects again") < said.index(f"job {job.id}: received")
        assert len(result["attempts"]) == 1
        assert fleet.executions() == {result["prompt_id"]: 1}
