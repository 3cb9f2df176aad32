"""The servers that the contract is checked against.

Every test that uses `comfyui` runs against the stand-in as each recorded version. With
`COMFYUI_CONTRACT_URL=http://host:8188` it runs against that real server as well; without, no test
knows of one. Real servers need our own node in `custom_nodes/`, or tests that use it are skipped.

The tests clear queue and history, interrupt what runs and leave files behind: never point them to a
server that somebody uses.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.valkey import Valkey
from workers.broker import sharing, transport

from .comfyui import ComfyUI
from .stand_in import StandIn

REAL_SERVER_URL = os.environ.get("COMFYUI_CONTRACT_URL")
STAND_INS = ["0.3.64", "0.8.0"]
SERVERS = [f"stand-in {version}" for version in STAND_INS] + ["real"] * bool(REAL_SERVER_URL)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who was hungry or served once is so for the whole test, however slow the machine is."""
    monkeypatch.setattr(transport, "_HUNGRY_SECONDS", 60.0)
    monkeypatch.setattr(sharing, "_SERVED_MS", 60_000)


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    """One for each test."""
    server = Valkey(tmp_path)
    yield server
    server.stop()


@pytest.fixture(scope="session", params=SERVERS)
def comfyui_url(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The base URL of each server in turn."""
    if request.param == "real":
        assert REAL_SERVER_URL
        yield REAL_SERVER_URL
        return
    version = request.param.removeprefix("stand-in ")
    with StandIn(tmp_path_factory.mktemp("comfyui"), version) as process:
        yield process.url


@pytest.fixture(scope="session")
def comfyui(comfyui_url: str) -> Iterator[ComfyUI]:
    """The client of each server in turn."""
    server = ComfyUI(comfyui_url)
    with server.http:
        yield server


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[StandIn]:
    """A stand-in of the test's own, for tests that stop it or break it."""
    with StandIn(tmp_path, STAND_INS[-1]) as process:
        yield process
