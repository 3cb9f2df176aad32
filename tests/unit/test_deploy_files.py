"""What one host is deployed with: compose file, systemd unit and image."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml

from settings import Settings, load

ROOT = Path(__file__).parents[2]
KNOWN = {field.alias for field in Settings.model_fields.values()}
UNIT = ROOT / "deploy/systemd/comfyfleet-worker@.service"
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
# Seconds after its grace in which a worker gives its jobs back.
FAREWELL = 5


def directives(name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", UNIT.read_text(), re.MULTILINE)


def test_the_unit_gives_jobs_their_grace_and_comes_back() -> None:
    (patience,) = map(float, directives("TimeoutStopSec"))
    variables = dict(
        line.split("=", 1)
        for line in (ROOT / "deploy/systemd/worker.env").read_text().splitlines()
        if not line.startswith("#")
    )
    assert patience > float(variables["SHUTDOWN_GRACE_SECONDS"]) + FAREWELL
    assert {name for name in variables if not name.startswith("AWS_")} <= KNOWN
    assert directives("Restart") == ["always"]
    # The code of wrong settings.
    assert directives("RestartPreventExitStatus") == ["2"]
    assert directives("KillSignal") == ["SIGTERM"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    program = directives("ExecStart")[0].partition(" ")[0]
    installed = tmp_path / "celery"
    installed.symlink_to("/bin/true")
    unit = tmp_path / "comfyfleet-worker@gpu0.service"
    unit.write_text(UNIT.read_text().replace(program, str(installed)))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", COMPOSE)
def test_each_service_comes_back_and_fills_no_disk(name: str) -> None:
    service = COMPOSE[name]
    assert service["restart"] == "unless-stopped"
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}
    assert "build" in service or re.search(r":[\w.-]*\d", service["image"]), "a moving tag"


def test_compose_waits_for_the_workers_grace() -> None:
    grace = COMPOSE["worker"]["stop_grace_period"].partition(":-")[2].removesuffix("s}")
    given = COMPOSE["worker"]["environment"]["SHUTDOWN_GRACE_SECONDS"]
    assert given == f"${{SHUTDOWN_GRACE_SECONDS:-{load().shutdown_grace_seconds:.0f}}}"
    assert float(grace) > load().shutdown_grace_seconds + FAREWELL


def test_compose_hands_on_every_setting() -> None:
    # A server's URL is one of COMFYUI_URLS there, and the port is the container's own.
    handed_on = COMPOSE["worker"]["environment"].keys()
    assert KNOWN - handed_on == {"COMFYUI_URL", "METRICS_HOST"}
    assert {name for name in handed_on - KNOWN if not name.startswith("AWS_")} == set()


def test_flower_watches_the_broker_that_workers_have() -> None:
    flower, worker = COMPOSE["flower"], COMPOSE["worker"]
    assert flower["environment"]["CELERY_BROKER_URL"] == worker["environment"]["CELERY_BROKER_URL"]
    assert not [word for word in flower["command"] if "broker" in word]


class Told(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/livez" else 404)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def port() -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), Told) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1), (None, 0)])
def test_the_image_asks_the_worker_how_it_is(
    port: int, monkeypatch: pytest.MonkeyPatch, status: int | None, code: int
) -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    (told,) = re.findall(r"HEALTHCHECK .*\\\n  CMD (\[.*\])", dockerfile)
    command = json.loads(told)
    assert command[:2] == ["python", "-c"]
    monkeypatch.setattr(Told, "status", status)
    # A proxy is none of its business.
    environment = {"http_proxy": "http://127.0.0.1:1"}
    environment |= {"METRICS_PORT": str(port)} if status else {}
    done = subprocess.run(
        [sys.executable, "-I", *command[1:]],
        env=environment,
        timeout=20,
        check=False,
        capture_output=True,
    )
    assert done.returncode == code, done.stderr
