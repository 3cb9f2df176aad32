"""Workers that take their servers by lease: two never drive one, and no server stays alone."""

import signal
import time

import pytest
import requests

from sandbox.processes import free_ports
from sandbox.stack import Stack
from settings import Settings
from tests.faults.scenes import Fleet, errors, eventually, executing, step_of, together
from tests.integration.pinning_scene import SPARE, PinnedFleet, is_ready, is_spare
from tests.stack import bars
from workers.bootstrap.clients import comfyui_client
from workers.lifecycle.probing import answering

pytestmark = pytest.mark.integration

TAKE_OVER_SECONDS = 30.0
HEALTH = ("/livez", "/readyz")


def scraped(port: int) -> set[str]:
    answer = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=5)
    answer.raise_for_status()
    return {line.partition(" ")[0] for line in answer.text.splitlines()}


@together
def test_each_takes_one_and_the_spare_that_of_a_dead_one(fleet: Fleet) -> None:
    pinned = PinnedFleet(fleet, [fleet.server(), fleet.server()])
    pinned.launch(3)
    (spare,) = pinned.spares()
    assert eventually(lambda: is_spare(spare))
    assert not is_ready(spare)
    assert all(server.url in spare.log.read_text() for server in pinned.servers)
    job = fleet.send(bars(1, seconds=8, steps=80))
    eventually(lambda: step_of(job) > 0)
    (number,) = (n for n, server in enumerate(pinned.servers) if server.executions())
    killed = pinned.await_pinned()[number]

    killed.kill()
    killed_at = time.monotonic()
    assert eventually(lambda: is_ready(spare))
    assert time.monotonic() - killed_at < TAKE_OVER_SECONDS
    assert pinned.await_pinned()[number] is spare
    # As if the server had had one worker all the time.
    result = job.get(timeout=30)
    assert (errors(result), result["instance"]) == (
        ["WorkerDiedError", None],
        pinned.servers[number].url,
    )
    assert fleet.executions() == {result["prompt_id"]: 1}


@together
def test_who_was_frozen_for_too_long_drives_its_server_no_more(fleet: Fleet) -> None:
    server = fleet.server()
    pinned = PinnedFleet(fleet, [server])
    pinned.launch(1)
    frozen = pinned.await_pinned()[0]
    # Given the same server as the only one, by accident.
    (port,) = free_ports(1)
    second = fleet.launch([server], METRICS_PORT=str(port), METRICS_HOST="127.0.0.1")
    assert eventually(lambda: is_spare(second))
    live, ready = (requests.get(f"http://127.0.0.1:{port}{path}", timeout=5) for path in HEALTH)
    assert (live.status_code, ready.status_code) == (200, 503)
    driven = f"{SPARE}{server.url} by 127.0.0.1-{server.port}@"
    assert ready.json()["checks"]["server"]["reason"].startswith(driven)
    # It is no target that is down, and no worker either.
    assert "comfyfleet_slots" not in scraped(port)
    assert driven in second.log.read_text()
    job = fleet.send(bars(1, seconds=20, steps=100))
    prompt = executing(server)

    frozen.pause()
    assert eventually(lambda: is_ready(second), TAKE_OVER_SECONDS)
    assert eventually(lambda: requests.get(f"http://127.0.0.1:{port}/readyz", timeout=5).ok)
    assert "comfyfleet_slots" in scraped(port)
    frozen.resume()
    # In the same process, without anybody who starts it again.
    assert eventually(lambda: is_spare(frozen))
    assert f"another worker drives {pinned.place}" in frozen.log.read_text()
    assert job.get(timeout=60)["prompt_id"] == prompt
    assert fleet.executions() == {prompt: 1}

    # A spare is gone at once; what is let go of is free at once.
    frozen.send_signal(signal.SIGTERM)
    assert frozen.wait(15) == 0
    assert not pinned.pins()[0].let_go
    second.send_signal(signal.SIGTERM)
    assert second.wait(20) == 0
    assert pinned.pins()[0].let_go


def test_what_answers_is_told_from_what_does_not(stack: Stack) -> None:
    urls = ["http://127.0.0.1:1", stack.comfyui_url, "http://no-such-host.invalid"]
    found = answering(urls, lambda url: comfyui_client(Settings(), url))
    assert found == {stack.comfyui_url}
