"""What a worker finds out about its server and tells of it, with a server that says what it likes.

The survey's thread waits for a nudge: its steps are awaited, and time is passed by moving back what
it remembers.
"""

import json
import logging
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tasks.errors import (
    BrokerFullError,
    BrokerUnavailableError,
    ComfyUIProtocolError,
    ComfyUIUnavailableError,
    InvalidInputError,
)
from workers.ledger.servers import Device, Server
from workers.routing import survey as module
from workers.routing.capabilities import Capabilities
from workers.routing.survey import Survey

SECONDS = 10.0

INFO = {"KSampler": {"input": {"required": {"steps": ["INT", {"max": 100}]}}}}
FOLDERS = {"checkpoints": ["a.safetensors"], "configs": ["a.yaml"], "custom_nodes": ["b.py"]}
STATS = {
    "system": {"comfyui_version": "0.8.0", "ram_total": 64, "ram_free": 32},
    "devices": [{"name": "cuda:0 GPU", "type": "cuda", "vram_total": 24, "vram_free": 20}],
}


class ComfyUI:
    """Answers as it is told, and notes what it was asked."""

    base_url = "http://gpu:8188"

    def __init__(self) -> None:
        self.info: Any = INFO
        self.folders: dict[str, list[str]] = {**FOLDERS}
        self.stats: Any = STATS
        self.is_old = False
        self.holds: threading.Event | None = None
        self.unlisted: dict[str, Exception] = {}
        self.asked: list[str] = []
        self.error: Exception | None = None

    def object_info_json(self) -> str:
        self._ask("all")
        if self.holds is not None:
            assert self.holds.wait(SECONDS)
        return self.info if isinstance(self.info, str) else json.dumps(self.info)

    def model_folders(self) -> list[str]:
        self._ask("folders")
        if self.is_old:
            raise ComfyUIProtocolError("404")
        return list(self.folders)

    def models(self, folder: str) -> list[str]:
        self._ask(folder)
        if folder in self.unlisted:
            raise self.unlisted[folder]
        return list(self.folders[folder])

    def system_stats(self) -> Any:
        self._ask("stats")
        return self.stats

    def _ask(self, what: str) -> None:
        if self.error is not None:
            raise self.error
        self.asked.append(what)


class Servers:
    """What all workers share; each telling is an event."""

    def __init__(self) -> None:
        self.told: queue.Queue[Server] = queue.Queue()
        self.capabilities: dict[str, bytes] = {}
        self.others: list[Server] = []
        self.is_full = False
        self.errors: queue.Queue[Exception] = queue.Queue()
        self.has_failed: queue.Queue[None] = queue.Queue()

    def tell(self, server: Server) -> tuple[bool, list[Server]]:
        if not self.errors.empty():
            self.has_failed.put(None)
            raise self.errors.get()
        self.told.put(server)
        return server.digest in self.capabilities, [*self.others, server]

    def tell_capabilities(self, digest: str, packed: bytes) -> None:
        if self.is_full:
            raise BrokerFullError("full")
        self.capabilities[digest] = packed

    def live(self) -> list[Server]:
        return [*self.others, server("here")]


def server(place: str, digest: str = "d") -> Server:
    return Server(
        place=place, instance=place, worker="w", version="1", digest=digest, takes_jobs=True
    )


class Scene:
    """A survey with all that it meets."""

    def __init__(self) -> None:
        self.comfyui, self.servers = ComfyUI(), Servers()
        self.takes_jobs, self.answers = True, True
        self._begun = False
        self.survey = Survey(
            self.comfyui,  # type: ignore[arg-type]
            self.servers,  # type: ignore[arg-type]
            "here",
            worker="worker@host",
            takes_jobs=lambda: self.takes_jobs,
            answers=lambda: self.answers,
        )

    def next(self) -> Server:
        """What is told next."""
        # What it tells first comes by itself.
        if self._begun or (self.survey.wait_begun(0.0) and self.servers.told.empty()):
            self.survey._nudged.set()
        self._begun = True
        return self.servers.told.get(timeout=SECONDS)

    def after(self, models: float = 0.0, everything: float = 0.0) -> Server:
        """What is told when so many seconds have passed since the looks at models, or at all."""
        self.comfyui.asked.clear()
        self.survey._models_at -= models
        self.survey._all_at -= everything
        return self.next()

    def looks(self) -> int:
        """How often everything was looked at."""
        return self.comfyui.asked.count("all")


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    # It goes on when it is nudged, and never by itself.
    monkeypatch.setattr(module, "_TELL_SECONDS", 3600.0)
    monkeypatch.setattr(module, "_TELL_SECONDS_AT_FIRST", 3600.0)
    # However slow the machine is, its thread ends and its looks are over in time.
    monkeypatch.setattr(module, "_LOOK_SECONDS", SECONDS)
    monkeypatch.setattr(module, "_STOP_SECONDS", SECONDS)
    one = Scene()
    yield one
    one.survey.stop()
    assert not one.survey._thread.is_alive()


def test_all_that_a_server_is_is_told(scene: Scene) -> None:
    scene.takes_jobs = False
    scene.survey.start()
    told = scene.next()
    expected = Capabilities.of(json.dumps(INFO), {"checkpoints": ["a.safetensors"]})
    assert told == Server(
        place="here",
        instance="http://gpu:8188",
        worker="worker@host",
        version="0.8.0",
        digest=expected.digest,
        takes_jobs=False,
        devices=(Device(name="cuda:0 GPU", kind="cuda", vram_total_bytes=24, vram_free_bytes=20),),
        ram_total_bytes=64,
        ram_free_bytes=32,
    )
    assert scene.survey.wait_begun(SECONDS)
    assert scene.servers.capabilities == {expected.digest: expected.packed()}
    # Folders without models are not asked for their files.
    assert sorted(scene.comfyui.asked) == ["all", "checkpoints", "folders", "stats"]


def test_capabilities_that_others_know_are_not_told_again(scene: Scene) -> None:
    scene.survey.start()
    digest = scene.next().digest
    scene.next()
    scene.servers.capabilities[digest] = b"as it was told"
    assert scene.next().digest == digest
    scene.next()
    assert scene.servers.capabilities == {digest: b"as it was told"}


def test_others_are_known_and_oneself_is_none_of_them(scene: Scene) -> None:
    calls: queue.Queue[str] = queue.Queue()
    scene.survey.subscribe(lambda: calls.put("called"))
    scene.servers.others = [server("there")]
    scene.survey.start()
    scene.next()
    # It has noted them by then, and notes nothing more.
    assert calls.get(timeout=SECONDS) == "called"
    assert [one.place for one in scene.survey.others] == ["there"]
    scene.servers.others = [server("elsewhere")]
    assert [one.place for one in scene.survey.look_at_others()] == ["elsewhere"]
    assert [one.place for one in scene.survey.others] == ["elsewhere"]


def test_who_subscribes_is_called_each_time(scene: Scene) -> None:
    calls: queue.Queue[str] = queue.Queue()
    scene.survey.subscribe(lambda: calls.put("called"))
    scene.survey.start()
    for _ in range(2):
        scene.next()
        assert calls.get(timeout=SECONDS) == "called"


# When it looks again


def test_nothing_is_looked_at_again_at_once(scene: Scene) -> None:
    scene.survey.start()
    scene.next()
    scene.after(models=20, everything=590)
    assert scene.comfyui.asked == []


def test_the_model_files_are_looked_at_now_and_then(scene: Scene) -> None:
    scene.survey.start()
    before = scene.next()
    assert scene.after(models=31).digest == before.digest
    assert sorted(scene.comfyui.asked) == ["checkpoints", "folders", "stats"]
    # A file that came is a reason to look at everything: choices have changed with it.
    scene.comfyui.folders["checkpoints"] = ["a.safetensors", "b.safetensors"]
    assert scene.after(models=31).digest != before.digest
    assert scene.looks() == 1
    known = scene.survey.capabilities
    assert known is not None
    assert known.models["checkpoints"] == ("a.safetensors", "b.safetensors")


def test_how_much_memory_is_free_is_looked_at_with_them(scene: Scene) -> None:
    scene.survey.start()
    scene.next()
    scene.comfyui.stats = {"system": {"ram_total": 8, "ram_free": 3}}
    assert scene.after(models=31).ram_free_bytes == 3
    assert scene.survey.server.ram_free_bytes == 3
    assert scene.looks() == 0


def test_everything_is_looked_at_seldom(scene: Scene) -> None:
    scene.survey.start()
    before = scene.next()
    scene.comfyui.info = {**INFO, "New": {}}
    assert scene.after(models=31).digest == before.digest
    assert scene.after(everything=601).digest != before.digest
    assert scene.looks() == 1


def test_a_server_that_may_be_another_one_is_looked_at(scene: Scene) -> None:
    scene.survey.start()
    scene.next()
    scene.comfyui.asked.clear()
    scene.survey.renew()
    scene.servers.told.get(timeout=SECONDS)
    assert scene.looks() == 1


def test_a_complaint_is_heard_unless_everything_was_looked_at_lately(scene: Scene) -> None:
    scene.survey.complain()
    assert scene.looks() == 1
    scene.comfyui.info = {}
    scene.survey.complain()
    assert scene.looks() == 1
    scene.survey._all_at -= 31
    scene.survey.complain()
    assert scene.looks() == 2
    known = scene.survey.capabilities
    assert known is not None
    assert len(known.nodes) == 0


def test_the_node_classes_are_asked_for_once(scene: Scene) -> None:
    assert dict(scene.survey.object_info()) == INFO
    assert dict(scene.survey.object_info()) == INFO
    assert scene.looks() == 1


# What goes wrong


def test_a_server_older_than_its_lists_of_models_is_told_without(scene: Scene) -> None:
    scene.comfyui.is_old = True
    scene.survey.start()
    digest = scene.next().digest
    known = scene.survey.capabilities
    assert known is not None
    assert (known.models, known.digest) == ({}, digest)
    scene.after(models=31)
    assert scene.comfyui.asked == ["folders", "stats"]


@pytest.mark.parametrize(
    "stats",
    [
        {},
        {"system": None, "devices": None},
        {"system": {}},
        {"system": "Linux", "devices": 1},
        {"system": {"ram_total": "much", "ram_free": None}, "devices": ["cuda:0"]},
    ],
)
def test_a_server_that_says_little_of_itself_is_told(scene: Scene, stats: Any) -> None:
    scene.comfyui.stats = stats
    scene.survey.start()
    told = scene.next()
    assert (told.version, told.devices, told.ram_total_bytes) == ("", (), None)


def test_a_device_that_says_nothing_of_its_memory_is_told(scene: Scene) -> None:
    scene.comfyui.stats = {"devices": [{"name": "npu", "type": "npu", "vram_total": "?"}]}
    scene.survey.start()
    assert scene.next().devices == (Device(name="npu", kind="npu"),)


def test_a_server_that_is_away_is_told_when_it_is_back(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.comfyui.error = ComfyUIUnavailableError("away")
    scene.survey.start()
    # Whoever waits for it to be told does not wait for the server.
    assert scene.survey.wait_begun(SECONDS)
    # Others count on it all the same.
    first = scene.next()
    assert (first.digest, first.version) == ("", "")
    scene.comfyui.error = None
    told = scene.next()
    while not told.digest:
        told = scene.next()
    assert told.version == "0.8.0"
    assert [one.levelno for one in caplog.records].count(logging.WARNING) == 1


def test_a_server_that_does_not_answer_is_told_as_it_was_and_not_asked(scene: Scene) -> None:
    scene.survey.start()
    before = scene.next()
    scene.answers, scene.takes_jobs = False, False
    told = scene.after(models=31, everything=601)
    assert told == before.model_copy(update={"takes_jobs": False})
    assert scene.comfyui.asked == []


@pytest.mark.parametrize(
    "fail",
    [
        pytest.param(lambda one: setattr(one, "error", ComfyUIUnavailableError("x")), id="away"),
        pytest.param(lambda one: setattr(one, "info", "<html>"), id="no JSON"),
        pytest.param(lambda one: setattr(one, "info", "[]"), id="no object"),
        pytest.param(lambda one: setattr(one, "info", "[" * 10**5), id="deep"),
    ],
)
def test_a_look_that_fails_takes_nothing_from_what_was_known(
    scene: Scene, fail: Callable[[ComfyUI], None]
) -> None:
    scene.survey.start()
    before = scene.next()
    fail(scene.comfyui)
    assert scene.after(everything=601) == before
    assert scene.next() == before


@pytest.mark.parametrize("info", ["<html>", "[]", "", '{"a":' + "[" * 10**5])
def test_an_answer_that_is_none_is_an_error_of_ours(scene: Scene, info: str) -> None:
    scene.comfyui.info = info
    with pytest.raises(ComfyUIProtocolError, match="http://gpu:8188"):
        scene.survey.object_info()
    with pytest.raises(ComfyUIProtocolError, match="/object_info"):
        scene.survey.complain()


def test_redis_that_is_away_is_said_once(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.survey.start()
    scene.next()
    for _ in range(3):
        scene.servers.errors.put(BrokerUnavailableError("away"))
        scene.survey._nudged.set()
        scene.servers.has_failed.get(timeout=SECONDS)
    scene.next()
    assert [one.levelno for one in caplog.records].count(logging.WARNING) == 1


def test_whatever_goes_wrong_it_goes_on(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.survey.start()
    scene.next()
    scene.servers.errors.put(RuntimeError("a fault"))
    scene.survey._nudged.set()
    scene.servers.has_failed.get(timeout=SECONDS)
    scene.next()
    assert "a fault" in caplog.text


def test_it_settles(scene: Scene) -> None:
    assert 0 < scene.survey.settling_seconds <= module._SETTLING_SECONDS
    scene.survey._began_at -= 6
    assert scene.survey.settling_seconds == 0


def test_it_settles_anew_when_redis_may_have_forgotten_the_others(scene: Scene) -> None:
    scene.survey._began_at -= 61
    scene.survey._heard_at -= 20
    scene.survey.look_at_others()
    assert (scene.survey.settling_seconds, scene.survey.returning_seconds) == (0, 0)
    # Nothing was heard for so long that they may not have told of themselves, either.
    scene.survey._heard_at -= 31
    for look in (tuple, scene.survey.look_at_others):
        look()
        assert 0 < scene.survey.settling_seconds <= 5
        assert 50 < scene.survey.returning_seconds <= 60
    scene.survey._began_at -= 61
    assert (scene.survey.settling_seconds, scene.survey.returning_seconds) == (0, 0)


def test_a_server_that_takes_its_time_to_answer_is_told_meanwhile(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.01)
    scene.survey.start()
    before = scene.next()
    scene.comfyui.info, scene.comfyui.holds = {**INFO, "New": {}}, threading.Event()
    for _ in range(3):
        assert scene.after(everything=601) == before
    scene.comfyui.holds.set()
    # It was one look all the time: nothing more has been asked since the last one began.
    assert scene.comfyui.asked == []
    looker = scene.survey._looker
    assert looker is not None
    looker.join(SECONDS)
    assert scene.next().digest != before.digest


def test_who_does_not_know_its_server_hears_of_others(scene: Scene) -> None:
    scene.comfyui.error = ComfyUIUnavailableError("away")
    scene.servers.others = [server("there")]
    scene.survey.start()
    assert scene.survey.wait_begun(SECONDS)
    assert [one.place for one in scene.survey.others] == ["there"]


def test_nobody_is_called_while_no_jobs_are_taken(scene: Scene) -> None:
    calls: queue.Queue[str] = queue.Queue()
    scene.survey.subscribe(lambda: calls.put("called"))
    scene.takes_jobs = False
    scene.survey.start()
    for _ in range(2):
        scene.next()
    scene.takes_jobs = True
    scene.next()
    assert calls.get(timeout=SECONDS) == "called"
    assert calls.empty()


@pytest.mark.parametrize(
    "error", [ComfyUIProtocolError("html"), InvalidInputError("no such folder")]
)
def test_a_folder_that_cannot_be_listed_takes_nothing_from_the_others(
    scene: Scene, error: Exception
) -> None:
    scene.comfyui.folders["odd/one"] = []
    scene.comfyui.unlisted = {"odd/one": error}
    scene.survey.start()
    scene.next()
    known = scene.survey.capabilities
    assert known is not None
    assert known.models == {"checkpoints": ("a.safetensors",)}


def test_what_a_full_redis_does_not_take_keeps_nothing_else_from_being_told(scene: Scene) -> None:
    calls: queue.Queue[str] = queue.Queue()
    scene.survey.subscribe(lambda: calls.put("called"))
    scene.servers.is_full = True
    scene.servers.others = [server("there")]
    scene.survey.start()
    scene.next()
    assert calls.get(timeout=SECONDS) == "called"
    assert [one.place for one in scene.survey.others] == ["there"]
