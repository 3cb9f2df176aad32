"""A ComfyUI that misbehaves, seen by the client and by the worker."""

import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from sandbox.stack import Stack, StandIn
from tasks.errors import (
    ComfyUIAccessDeniedError,
    ComfyUIProtocolError,
    ComfyUIUnavailableError,
    InvalidWorkflowError,
    JobError,
    PromptLostError,
)
from tests.faults.scenes import eventually
from tests.stack import Client, bars
from workers.comfyui import ComfyUI, Notifications
from workers.comfyui.notifications import Subscription
from workers.execution.control import Control
from workers.execution.job import prompt_id
from workers.execution.waiting import Patience, await_entry

pytestmark = pytest.mark.integration


@pytest.fixture
def server(stack: Stack) -> Iterator[StandIn]:
    """The stack's stand-in, whole again after the test."""
    yield stack.comfyui
    requests.delete(f"{stack.comfyui.url}/sandbox/faults", timeout=5).raise_for_status()


@pytest.fixture
def comfyui(server: StandIn) -> Iterator[ComfyUI]:
    with ComfyUI(server.url) as client:
        yield client
        client.interrupt_all()


def wait_for(
    prompt_id: str,
    comfyui: ComfyUI,
    notifications: Notifications,
    subscription: Subscription,
    on_tick: Callable[[bool], None] = lambda _: None,
) -> dict[str, Any]:
    """The prompt's history entry, in twenty seconds at the most."""
    return await_entry(
        prompt_id,
        comfyui=comfyui,
        notifications=notifications,
        subscription=subscription,
        patience=Patience(seconds=20.0),
        control=Control(),
        on_tick=on_tick,
        on_trouble=lambda: None,
    )


def blocked(comfyui: ComfyUI, seed: int) -> str:
    """A prompt that executes until it is interrupted, and keeps all others from it."""
    prompt_id = str(uuid.uuid4())
    comfyui.submit(bars(seed + 10**6, seconds=300, steps=3000), prompt_id, "another")
    eventually(lambda: prompt_id in comfyui.queue().running)
    return prompt_id


def inject(server: StandIn, websocket: str | None = None, **rule: object) -> None:
    faults = {"http": [rule] if rule else [], "websocket": websocket}
    requests.put(f"{server.url}/sandbox/faults", json=faults, timeout=5).raise_for_status()


@pytest.mark.parametrize(
    ("rule", "leaf"),
    [
        ({"status": 400}, ComfyUIProtocolError),
        ({"status": 401}, ComfyUIAccessDeniedError),
        ({"status": 403}, ComfyUIAccessDeniedError),
        ({"status": 404}, ComfyUIProtocolError),
        ({"status": 429}, ComfyUIUnavailableError),
        ({"status": 500}, ComfyUIUnavailableError),
        ({"status": 502}, ComfyUIUnavailableError),
        ({"status": 200, "body": "<html>", "content_type": "text/html"}, ComfyUIProtocolError),
        ({"status": 200, "body": "[1]", "content_type": "application/json"}, ComfyUIProtocolError),
        (
            {"status": 200, "body": '{"queue_running": [5]}', "content_type": "application/json"},
            ComfyUIProtocolError,
        ),
        ({"drop": True}, ComfyUIUnavailableError),
    ],
    ids=str,
)
def test_each_answer_has_its_leaf(
    server: StandIn, comfyui: ComfyUI, rule: dict[str, object], leaf: type[JobError]
) -> None:
    inject(server, method="GET", path="/queue", **rule)
    with pytest.raises(JobError) as caught:
        comfyui.queue()
    assert type(caught.value) is leaf
    assert server.url in caught.value.message


def test_an_answer_that_does_not_come_has_its_leaf(server: StandIn) -> None:
    inject(server, method="GET", path="/queue", delay_seconds=10)
    with ComfyUI(server.url, read_timeout=1) as comfyui:
        with pytest.raises(ComfyUIUnavailableError, match=re.escape(server.url)):
            comfyui.queue()


@pytest.mark.parametrize(
    ("rule", "leaf"),
    [
        ({"status": 400, "body": "no", "content_type": "text/plain"}, InvalidWorkflowError),
        ({"status": 403, "body": "no", "content_type": "text/html"}, ComfyUIAccessDeniedError),
        ({"status": 404, "body": "no", "content_type": "text/html"}, ComfyUIProtocolError),
        ({"status": 413, "body": "no", "content_type": "text/html"}, InvalidWorkflowError),
        ({"status": 500, "body": "500", "content_type": "text/plain"}, InvalidWorkflowError),
        ({"status": 500, "body": "<p>", "content_type": "text/html"}, ComfyUIUnavailableError),
        ({"status": 503, "body": "no", "content_type": "text/plain"}, ComfyUIUnavailableError),
    ],
    ids=str,
)
def test_each_answer_to_a_prompt_has_its_leaf(
    server: StandIn, comfyui: ComfyUI, rule: dict[str, object], leaf: type[JobError], seed: int
) -> None:
    inject(server, method="POST", path="/prompt", **rule)
    with pytest.raises(JobError) as caught:
        comfyui.submit(bars(seed), str(uuid.uuid4()), "client")
    assert type(caught.value) is leaf


def test_a_redirect_is_not_followed_with_our_headers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(
                    b"HTTP/1.1 302 Found\r\nLocation: https://login.example\r\n"
                    b"Content-Length: 0\r\n\r\n"
                )

        thread = threading.Thread(target=answer)
        thread.start()
        with ComfyUI(f"http://127.0.0.1:{listener.getsockname()[1]}") as client:
            with pytest.raises(ComfyUIProtocolError, match="redirect to https://login.example"):
                client.queue()
        thread.join()


def test_the_websocket_follows_no_redirect_either() -> None:
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            there = f"ws://127.0.0.1:{elsewhere.getsockname()[1]}/ws"
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            notifications = Notifications(url, "me", headers={"Authorization": "Bearer t"})
            notifications.start()
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                answer = f"HTTP/1.1 302 Found\r\nLocation: {there}\r\nContent-Length: 0\r\n\r\n"
                connection.sendall(answer.encode())
            # It comes back here, and has not gone there.
            listener.accept()[0].close()
            notifications.stop()
        elsewhere.settimeout(0)
        with pytest.raises(BlockingIOError):
            elsewhere.accept()


def test_nobody_there() -> None:
    with ComfyUI("http://127.0.0.1:1") as client:
        with pytest.raises(ComfyUIUnavailableError, match="refused or cut the connection"):
            client.system_stats()


def test_headers_are_sent_with_requests_and_with_the_websocket() -> None:
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def listen() -> None:
            for _ in range(2):
                connection, _ = listener.accept()
                with connection:
                    heard.append(connection.recv(65536))

        thread = threading.Thread(target=listen)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/base"
        headers = {"Authorization": "Bearer t", "Cookie": "a=b"}
        with ComfyUI(url, headers=headers) as client, pytest.raises(ComfyUIUnavailableError):
            client.queue()
        notifications = Notifications(url, "me", headers=headers)
        notifications.start()
        thread.join()
        notifications.stop()
    assert heard[0].startswith(b"GET /base/queue ")
    assert heard[1].startswith(b"GET /base/ws?clientId=me ")
    for request in heard:
        assert b"Authorization: Bearer t\r\n" in request
        assert b"Cookie: a=b\r\n" in request


def test_with_the_websocket_dead_polling_finishes_the_job(
    server: StandIn, comfyui: ComfyUI, seed: int
) -> None:
    inject(server, websocket="refuse")
    notifications = Notifications(server.url, "deaf")
    notifications.start()
    prompt_id = str(uuid.uuid4())
    first = blocked(comfyui, seed)
    ticks: list[bool] = []

    def on_tick(running: bool) -> None:
        ticks.append(running)
        if len(ticks) == 2:
            comfyui.interrupt(first)

    with notifications.subscribed(prompt_id) as subscription:
        comfyui.submit(bars(seed), prompt_id, "deaf")
        entry = wait_for(prompt_id, comfyui, notifications, subscription, on_tick)
    notifications.stop()
    assert entry["status"]["completed"]
    assert not notifications.connected
    assert len(ticks) >= 2


@pytest.mark.usefixtures("running_worker")
def test_a_mute_websocket_does_not_hold_the_job_up(
    client: Client, server: StandIn, seed: int
) -> None:
    inject(server, websocket="mute")
    result = client.run(bars(seed, seconds=0.3))
    assert result["timings"]["executed"] < 20


def test_a_cut_websocket_comes_back(server: StandIn, comfyui: ComfyUI, seed: int) -> None:
    notifications = Notifications(server.url, f"cut-{seed}")
    prompt_id = str(uuid.uuid4())
    try:
        with notifications.subscribed(prompt_id) as subscription:
            notifications.start()
            # The hint on connecting, so that nobody relies on messages missed before it.
            assert subscription.wait(30)
            first = blocked(comfyui, seed)
            comfyui.submit(bars(seed), prompt_id, notifications.client_id)
            before = time.monotonic()
            requests.post(f"{server.url}/sandbox/faults/cut", timeout=5).raise_for_status()
            eventually(lambda: not notifications.held_since(before) and notifications.connected)
            comfyui.interrupt(first)
            entry = wait_for(prompt_id, comfyui, notifications, subscription)
            # It heard the rest: the end came as a message, too.
            eventually(lambda: subscription.progress.finished)
        assert entry["status"]["completed"]
    finally:
        notifications.stop()


def test_a_passing_outage_is_waited_out(server: StandIn, comfyui: ComfyUI, seed: int) -> None:
    notifications = Notifications(server.url, "deaf")
    prompt_id = str(uuid.uuid4())
    with notifications.subscribed(prompt_id) as subscription:
        comfyui.submit(bars(seed, seconds=0.3), prompt_id, "another")
        inject(server, method="GET", path="/history/*", drop=True, times=2)
        entry = wait_for(prompt_id, comfyui, notifications, subscription)
    assert entry["status"]["completed"]


def test_a_forgotten_prompt_is_noticed(server: StandIn, comfyui: ComfyUI) -> None:
    notifications = Notifications(server.url, "lost")
    prompt_id = str(uuid.uuid4())
    with notifications.subscribed(prompt_id) as subscription:
        with pytest.raises(PromptLostError, match=f"has forgotten prompt {prompt_id}"):
            wait_for(prompt_id, comfyui, notifications, subscription)


@pytest.mark.usefixtures("running_worker")
def test_a_passing_fault_is_retried_and_kept(client: Client, server: StandIn, seed: int) -> None:
    inject(server, method="POST", path="/prompt", status=503, times=1)
    job_id = str(uuid.uuid4())
    with client.following(job_id) as told:
        client.send(bars(seed), options={"task_id": job_id})
        *before, end = told
    # Its message is not sent again but given back; that an attempt has failed shows all the same.
    (retrying,) = (meta for meta in before if meta["status"] == "RETRY")
    assert type(retrying["result"]).__name__ == "ComfyUIUnavailableError"
    result = end["result"]
    first, second = result["attempts"]
    assert first["error"].startswith("ComfyUIUnavailableError: ComfyUI at ")
    assert first["error"].endswith(str(retrying["result"]))
    assert (second["number"], second["error"]) == (2, None)
    assert first["prompt_id"] != second["prompt_id"] == result["prompt_id"]
    assert f"/{result['job_id']}/2/" in f"/{result['outputs'][0]['key']}"


@pytest.mark.usefixtures("running_worker")
def test_out_of_memory_is_tried_once_more_with_memory_freed(
    client: Client, server: StandIn, seed: int
) -> None:
    before = server.executions()
    # Saved before the other node fails, and then answered from the cache, unless that was freed.
    workflow = {
        "3": {
            "class_type": "EmptyImage",
            "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": seed},
        },
        "4": {
            "class_type": "SaveImage",
            "inputs": {"images": ["3", 0], "filename_prefix": f"oom-{seed}"},
        },
        **bars(seed, mode="oom"),
    }
    job = client.send(workflow)
    error = job.get(timeout=30, propagate=False)
    assert type(error).__name__ == "OutOfMemoryError"
    reason, _, attempts = str(error).partition(" (attempts: ")
    assert reason.startswith("node 1 (BarsRender) ran out of memory: ")
    # There is no other server: a third one would be in vain.
    one = rf"{server.url} OutOfMemoryError after \d+\.\d s"
    assert re.fullmatch(rf"1 on {one}, 2 on {one}\)", attempts)
    prompts = {prompt_id(job.id, number) for number in (1, 2)}
    assert server.executions().keys() - before.keys() == prompts
    assert len(list(server.directory.rglob(f"oom-{seed}_*.png"))) == 2


@pytest.mark.usefixtures("running_worker")
@pytest.mark.parametrize(
    ("path", "rule"),
    [("/history/*", {"status": 404}), ("/history/*", {"drop": True}), ("/view", {"drop": True})],
    ids=["history-404", "history-cut", "view-cut"],
)
def test_one_odd_answer_does_not_have_the_gpu_paid_twice(
    client: Client, server: StandIn, seed: int, path: str, rule: dict[str, object]
) -> None:
    before = server.executions()
    inject(server, method="GET", path=path, times=1, **rule)
    result = client.run(bars(seed))
    assert len(result["attempts"]) == 1
    assert server.executions().keys() - before.keys() == {result["prompt_id"]}


@pytest.mark.usefixtures("running_worker")
def test_a_timeout_is_kept_while_the_server_hangs(
    client: Client, server: StandIn, seed: int
) -> None:
    inject(server, method="GET", path="/history/*", delay_seconds=40)
    began = time.monotonic()
    error = client.failure(bars(seed, seconds=30, steps=300), timeout_seconds=1)
    assert type(error).__name__ == "JobTimeoutError"
    assert time.monotonic() - began < 30


@pytest.mark.usefixtures("running_worker")
def test_a_lost_answer_to_a_prompt_does_not_run_it_twice(
    client: Client, server: StandIn, seed: int
) -> None:
    before = server.executions()
    inject(server, method="POST", path="/prompt", drop=True, after=True, times=1)
    result = client.run(bars(seed))
    assert server.executions().keys() - before.keys() == {result["prompt_id"]}
