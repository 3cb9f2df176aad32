"""A broker that goes away and comes back while a job runs."""

import time

import pytest

from sandbox.stack import Stack
from sandbox.valkey import Valkey
from tests.stack import Client, bars
from workers.comfyui import ComfyUI

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("until_the_job_has_ended", [False, True])
def test_the_worker_outlives_the_broker(
    stack: Stack, seed: int, until_the_job_has_ended: bool
) -> None:
    valkey = Valkey(stack.folder("valkey"))
    own = {"CELERY_BROKER_URL": valkey.url, "CELERY_RESULT_BACKEND": valkey.url}
    worker = stack.worker(settings=own)
    client = Client({**stack.environment(), **own})
    before = stack.comfyui.executions()
    job_id = client.send(bars(seed, seconds=2.0, steps=20)).id
    while stack.comfyui.executions() == before:
        assert worker.returncode is None
        time.sleep(0.02)
    client.close()

    valkey.stop()
    if until_the_job_has_ended:
        # Its result finds no backend, and its acknowledgement no broker.
        with ComfyUI(stack.comfyui_url) as comfyui:
            while comfyui.queue().running:
                time.sleep(0.02)
    valkey.start()

    client = Client({**stack.environment(), **own})
    result = client.celery.AsyncResult(job_id).get(timeout=60)
    for more in range(3):
        # As many as slots and one: none was lost.
        assert client.run(bars(seed + 700 + more))["outputs"]
    assert worker.returncode is None, worker.tail(40)
    assert stack.comfyui.executions()[result["prompt_id"]] == 1
    client.close()
    worker.stop()
    valkey.stop()
