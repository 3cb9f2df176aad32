"""A ComfyUI that means harm: names that want out of the job's folder, answers that never end."""

import base64
import gzip
import hashlib
import json
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import requests

from sandbox.stack import Stack, StandIn
from tasks.errors import ComfyUIProtocolError, ComfyUIUnavailableError
from tests.stack import Client, bars
from workers.comfyui import ComfyUI, Notifications
from workers.comfyui.notifications import MOST_MESSAGE_BYTES
from workers.execution.job import prompt_id

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]


class Site:
    """A worker on a stand-in whose history says what the test wants."""

    def __init__(self, stack: Stack) -> None:
        self.comfyui: StandIn = stack.stand_in()
        broker = stack.valkey.url.replace("/0", "/5")
        own = {"CELERY_BROKER_URL": broker, "CELERY_RESULT_BACKEND": broker}
        self.worker = stack.worker(self.comfyui.url, {**own, "JOB_MAX_ATTEMPTS": "1"})
        self.client = Client({**stack.environment(), **own})

    def forge(self, job_id: str, outputs: object) -> None:
        """Make the history of each attempt at the job a success with these outputs."""
        status = {"status_str": "success", "completed": True, "messages": []}
        entry = {"prompt": [], "outputs": outputs, "status": status}
        rule = {
            "method": "GET",
            "path": "/history/*",
            "status": 200,
            "body": json.dumps({prompt_id(job_id, n): entry for n in range(1, 9)}),
            "content_type": "application/json",
        }
        self.set_faults({"http": [rule]})

    def set_faults(self, rules: dict[str, Any]) -> None:
        requests.put(f"{self.comfyui.url}/sandbox/faults", json=rules, timeout=5).raise_for_status()

    def place(self, name: str, content: bytes) -> None:
        """Write a file among the stand-in's outputs."""
        (self.comfyui.directory / "output" / name).write_bytes(content)

    def run(self, job_id: str, seed: int) -> Any:
        """The result of a job, or its error."""
        handle = self.client.send(bars(seed), options={"task_id": job_id})
        return handle.get(timeout=30, propagate=False)

    def stored(self) -> set[str]:
        """Every key in the bucket."""
        pages = self.client.s3.get_paginator("list_objects_v2").paginate(Bucket=self.client.bucket)
        return {item["Key"] for page in pages for item in page.get("Contents", [])}

    def close(self) -> None:
        """Stop what was started for it."""
        self.client.close()
        self.worker.stop()
        self.comfyui.stop()


@pytest.fixture(scope="module")
def site(stack: Stack) -> Iterator[Site]:
    one = Site(stack)
    yield one
    one.close()


PLACED = [
    *("a\nb.png", "\u202egnp.exe", "..\\..\\x.png", 'q"uo"te.png', "%2e%2e%2f.png", "+ &=?#.png"),
    *(" a. ", "...", "-", "manifest.json", "é" * 120, "日本.png", "a;b=c,d\x7f.png", ".png"),
]


def test_files_that_are_there_are_stored_whatever_they_are_called(site: Site, seed: int) -> None:
    job_id = str(uuid.uuid4())
    contents = {name: f"content {n}".encode() for n, name in enumerate(PLACED)}
    for name, content in contents.items():
        site.place(name, content)
    # ComfyUI itself refuses two dots in a row.
    files = [{"filename": name} for name in PLACED if ".." not in name]
    outputs = {"../..": {"images": files}, "/": {"images": files[::-1]}, "\ud800": {"x": [1]}}
    before = site.stored()
    site.forge(job_id, outputs)
    result = site.run(job_id, seed)

    assert {output["filename"] for output in result["outputs"]} == {f["filename"] for f in files}
    for output in result["outputs"]:
        assert site.client.content(output["key"]) == contents[output["filename"]]
        assert output["sha256"] == hashlib.sha256(contents[output["filename"]]).hexdigest()
    new = site.stored() - before
    assert new == {o["key"] for o in result["outputs"]} | {result["manifest"]["key"]}
    assert all(key.startswith(f"{job_id}/") for key in new)


@pytest.mark.parametrize(
    "file",
    [
        {"filename": "../../../../etc/passwd"},
        {"filename": "/etc/passwd"},
        {"filename": "..\\..\\x.png"},
        {"filename": "passwd", "subfolder": "../../../../etc"},
        {"filename": "passwd", "subfolder": "/etc"},
        {"filename": "a\0b.png"},
        {"filename": "a.png", "subfolder": "a\0b"},
        {"filename": "x" * 4096},
        {"filename": "x", "subfolder": "y" * 4096},
        {"filename": "\ud800.png"},
        {"filename": "a.png", "type": "../.."},
        {"filename": "."},
        {"filename": ".."},
    ],
    ids=lambda file: ascii(file)[:60],
)
def test_files_that_are_not_there_fail_the_job(site: Site, seed: int, file: dict[str, str]) -> None:
    job_id = str(uuid.uuid4())
    before = site.stored()
    site.forge(job_id, {"2": {"images": [file]}})
    error = site.run(job_id, seed)
    assert type(error).__name__ in ("OutputMissingError", "NodeFailedError"), error
    assert str(error).isprintable()
    assert site.stored() == before
    assert site.worker.returncode is None


NO_OUTPUTS = {
    "a number": 5,
    "a list": [[["x"]]],
    "no objects": {"1": None, "2": [{"filename": "x"}], "3": {"images": 7}},
    "no names": {"1": {"images": [{"filename": None}, {"filename": ["x"]}, {"filename": ""}]}},
    "odd numbers": {"1": {"n": [float("nan"), 10**400, 1e308]}},
    "half characters": {"\ud800": {"\ud800": ["\udfff", {"\ud800": 1}]}},
    "an id of 4 kB": {"x" * 4096: {"text": ["a cat"]}},
}


@pytest.mark.parametrize("outputs", NO_OUTPUTS.values(), ids=NO_OUTPUTS.keys())
def test_outputs_of_no_known_form_are_no_files(site: Site, seed: int, outputs: object) -> None:
    job_id = str(uuid.uuid4())
    site.forge(job_id, outputs)
    assert site.run(job_id, seed)["outputs"] == []


@pytest.mark.parametrize(
    "job_id", ["../../up-{}", "/root-{}", "a\\b-{}", "日本-{}", "x" * 900 + "{}", "a\nb\0c-{}"]
)
def test_a_job_of_any_id_has_a_folder_of_its_own(site: Site, seed: int, job_id: str) -> None:
    site.set_faults({})
    before = site.stored()
    result = site.run(job_id.format(uuid.uuid4()), seed)
    new = site.stored() - before
    assert new == {o["key"] for o in result["outputs"]} | {result["manifest"]["key"]}
    (folder,) = {key.split("/")[0] for key in new}
    assert folder not in ("", ".", "..", "up", "root")
    assert len(new) == 2


# What a server does on a connection: with the request, until the event.
Send = Callable[[socket.socket, bytes, threading.Event], None]


@contextmanager
def serving(send: Send) -> Iterator[str]:
    """A server that treats every request alike, as long as its client listens."""
    over = threading.Event()

    def serve(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            send(connection, connection.recv(65536), over)

    def accept() -> None:
        with suppress(OSError):
            while True:
                thread = threading.Thread(target=serve, args=listener.accept()[:1])
                thread.start()
                threads.append(thread)

    threads: list[threading.Thread] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        acceptor = threading.Thread(target=accept)
        acceptor.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            over.set()
            listener.shutdown(socket.SHUT_RDWR)
            acceptor.join()
            for thread in threads:
                thread.join()


def dripping(start: bytes, drop: bytes) -> Send:
    """Something now and then, before any timeout between bytes, and never an end."""

    def send(connection: socket.socket, _: bytes, over: threading.Event) -> None:
        connection.sendall(start)
        while not over.wait(0.05):
            connection.sendall(drop)

    return send


def pouring(start: bytes) -> Send:
    """All that the client takes."""

    def send(connection: socket.socket, _: bytes, over: threading.Event) -> None:
        connection.sendall(start)
        while not over.is_set():
            connection.sendall(b" " * 1_000_000)

    return send


def sending(content: bytes) -> Send:
    """One answer."""

    def send(connection: socket.socket, _: bytes, __: threading.Event) -> None:
        connection.sendall(content)

    return send


OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    "send",
    [
        dripping(OK + b"Content-Length: 100000\r\n\r\n{", b" "),
        dripping(OK + b"\r\n{", b" "),
        dripping(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
        dripping(OK + b"Transfer-Encoding: chunked\r\n\r\n1;", b"x"),
        dripping(OK + b"X-Long: ", b"x"),
        dripping(b"", b"x"),
        dripping(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
    ids=["length", "no-length", "chunks", "chunk-size", "head", "status", "continue"],
)
def test_an_answer_that_drips_is_given_up(send: Send) -> None:
    with serving(send) as url, ComfyUI(url, read_timeout=0.3) as comfyui:
        began = time.monotonic()
        with pytest.raises(ComfyUIUnavailableError, match="in time"):
            comfyui.queue()
        assert 0.5 < time.monotonic() - began < 5


@pytest.mark.parametrize(
    "send",
    [
        pouring(OK + b"\r\n["),
        pouring(OK + b"Content-Length: 99999999999\r\n\r\n["),
        sending(OK + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b" " * 80_000_000)),
    ],
    ids=["no-length", "length", "gzip"],
)
def test_an_answer_without_end_is_given_up(send: Send) -> None:
    with serving(send) as url, ComfyUI(url) as comfyui:
        with pytest.raises(ComfyUIProtocolError, match="answers more than 67,108,864 bytes"):
            comfyui.queue()


def test_an_answer_that_was_read_leaves_the_connection_open() -> None:
    accepted: list[socket.socket] = []

    def send(connection: socket.socket, _: bytes, __: threading.Event) -> None:
        accepted.append(connection)
        for _number in range(3):
            connection.sendall(OK + b"Content-Length: 2\r\n\r\n{}")
            connection.recv(65536)

    with serving(send) as url, ComfyUI(url) as comfyui:
        assert [comfyui.history("p") for _ in range(3)] == [None] * 3
    assert len(accepted) == 1


def frame(opcode: int, payload: bytes) -> bytes:
    return bytes([0x80 | opcode, 127]) + len(payload).to_bytes(8, "big") + payload


def upgrade(request: bytes) -> bytes:
    (line,) = (one for one in request.splitlines() if one.startswith(b"Sec-WebSocket-Key: "))
    key = line.partition(b": ")[2] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    accept = base64.b64encode(hashlib.sha1(key).digest())
    head = b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    return head + b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"


@pytest.mark.parametrize(
    "garbage",
    [
        frame(1, b""),
        frame(1, b"{"),
        frame(1, b"[" * 200_000),
        frame(1, b'{"type": "progress", "data": {"prompt_id": "p", "value": 1e999, "max": 1}}'),
        frame(1, b'{"type": "executing", "data": {"prompt_id": "p", "node": "\\ud800"}}'),
        frame(1, b"\xff\xfe"),
        frame(2, b"\xff\xfe" * 200_000),
        frame(3, b"no such kind"),
        frame(9, b"x" * 200_000),
        # One that announces a terabyte.
        bytes([0x82, 127, 0, 0, 1, 0, 0, 0, 0, 0]) + b" " * (MOST_MESSAGE_BYTES + 1),
    ],
    ids=lambda garbage: ascii(garbage[:12]),
)
def test_the_listener_outlives_what_it_hears(garbage: bytes) -> None:
    first = threading.Event()

    def send(connection: socket.socket, request: bytes, over: threading.Event) -> None:
        told = json.dumps({"type": "execution_success", "data": {"prompt_id": "p"}}).encode()
        connection.sendall(upgrade(request))
        if not first.is_set():
            first.set()
            connection.sendall(garbage)
        connection.sendall(frame(1, told))
        over.wait()

    with serving(send) as url:
        notifications = Notifications(url, "me")
        with notifications.subscribed("p") as subscription:
            notifications.start()
            try:
                while not subscription.progress.finished:
                    assert subscription.wait(60)
            finally:
                notifications.stop()
