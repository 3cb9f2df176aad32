"""Where input files are placed and when they are not placed again, with clients of paper."""

import base64
import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import pytest

from tasks.errors import (
    ComfyUIUnavailableError,
    InvalidInputError,
    JobError,
    StorageUnavailableError,
)
from workers.comfyui.model import FileRef
from workers.execution import inputs as module
from workers.execution.inputs import Inputs
from workers.storage.store import ObjectStat

LONG = 20.0
MOST = 1000
Let = Callable[[], object]


class Server:
    """Keeps files where it is told, unless it is told otherwise."""

    def __init__(self) -> None:
        self.files: dict[FileRef, bytes] = {}
        self.uploads: list[str] = []
        self.asked: list[FileRef] = []
        self.errors: list[JobError] = []
        self.let: Let = lambda: None

    def upload_image(
        self, filename: str, content: bytes, *, subfolder: str, overwrite: bool = False
    ) -> FileRef:
        # Somebody may be reading what is there.
        assert not overwrite
        self.uploads.append(filename)
        self.let()
        if self.errors:
            raise self.errors.pop(0)
        file = FileRef(filename, subfolder, "input")
        self.files[file] = content
        return file

    def has(self, file: FileRef) -> bool:
        self.asked.append(file)
        if self.errors:
            raise self.errors.pop(0)
        return file in self.files


class Store:
    """A bucket whose objects can change."""

    bucket = "b"

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.stats: list[str] = []
        self.fetched: list[str] = []
        self.on_get: Let = lambda: None
        self.errors: list[JobError] = []

    def stat(self, key: str) -> ObjectStat | None:
        self.stats.append(key)
        if self.errors:
            raise self.errors.pop(0)
        content = self.objects.get(key)
        if content is None:
            return None
        return ObjectStat(len(content), _etag(content))

    def read(self, key: str, most_bytes: int) -> tuple[bytes, str] | None:
        self.fetched.append(key)
        self.on_get()
        content = self.objects.get(key)
        return None if content is None else (content[:most_bytes], _etag(content))


def _etag(content: bytes) -> str:
    return f'"{hashlib.md5(content).hexdigest()}"'


class Scene:
    """One server's inputs."""

    def __init__(self) -> None:
        self.server = Server()
        self.store = Store()
        self.inputs = Inputs(
            comfyui=self.server,  # type: ignore[arg-type]
            store=self.store,  # type: ignore[arg-type]
            max_bytes=MOST,
        )

    def place(self, source: str, name: str = "a.png") -> str:
        """Where a job finds this file, which its workflow uses."""
        placed = self.inputs.place(using(name), {name: source})
        return str(placed["1"]["inputs"]["image"])


@pytest.fixture
def scene() -> Scene:
    return Scene()


def using(*names: str) -> dict[str, Any]:
    nodes = {str(n): {"image": name} for n, name in enumerate(names, 1)}
    return {n: {"class_type": "LoadImage", "inputs": inputs} for n, inputs in nodes.items()}


def data(content: bytes) -> str:
    return f"data:;base64,{base64.b64encode(content).decode()}"


def where(content: bytes, name: str = "a.png") -> str:
    return f"comfyfleet/{hashlib.sha256(content).hexdigest()}/{name}"


# Where


def test_a_file_lies_in_a_folder_of_its_content(scene: Scene) -> None:
    assert scene.place(data(b"red")) == where(b"red")
    assert list(scene.server.files.values()) == [b"red"]


def test_the_folders_of_a_name_are_kept(scene: Scene) -> None:
    assert scene.place(data(b"red"), "in/my a.png") == where(b"red", "in/my a.png")


def test_only_what_names_the_file_is_changed_and_in_a_copy(scene: Scene) -> None:
    workflow = {
        "1": {"class_type": "A", "inputs": {"image": "a.png", "n": 1, "link": ["2", 0]}},
        "2": {"class_type": "B", "inputs": {"x": "a.png", "y": "b.png", "z": "a.png "}},
    }
    placed = scene.inputs.place(workflow, {"a.png": data(b"red")})
    assert placed == {
        "1": {"class_type": "A", "inputs": {"image": where(b"red"), "n": 1, "link": ["2", 0]}},
        "2": {"class_type": "B", "inputs": {"x": where(b"red"), "y": "b.png", "z": "a.png "}},
    }
    assert workflow["1"]["inputs"]["image"] == "a.png"


def test_the_server_has_the_last_word_about_where(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        scene.server, "upload_image", lambda *_, **__: FileRef("b.png", "", "input")
    )
    assert scene.place(data(b"red")) == "b.png"


def test_without_inputs_nothing_is_asked(scene: Scene) -> None:
    workflow = using("a.png")
    assert scene.inputs.place(workflow, {}) == workflow
    assert (scene.server.uploads, scene.store.stats) == ([], [])


# Once


def test_the_same_file_is_placed_once_while_it_is_there(scene: Scene) -> None:
    for _ in range(3):
        assert scene.place(data(b"red")) == where(b"red")
    (file,) = scene.server.files
    # Somebody may have cleared the folder, or the server may be another one.
    assert (scene.server.uploads, scene.server.asked) == (["a.png"], [file] * 2)


def test_the_same_content_from_elsewhere_is_the_same_file(scene: Scene) -> None:
    scene.store.objects = {"red": b"red", "copy": b"red"}
    for source in (data(b"red"), "data:,red", "s3://b/red", "s3://b/copy"):
        assert scene.place(source) == where(b"red")
    assert scene.server.uploads == ["a.png"]


def test_other_content_of_the_same_name_lies_elsewhere(scene: Scene) -> None:
    contents = [b"red", b"blue", b"red"]
    assert [scene.place(data(content)) for content in contents] == [
        where(content) for content in contents
    ]
    assert scene.server.uploads == ["a.png", "a.png"]
    assert sorted(scene.server.files.values()) == [b"blue", b"red"]


def test_the_same_content_under_another_name_is_another_file(scene: Scene) -> None:
    # A loader may tell what it is by its name.
    assert scene.place(data(b"red"), "a.png") == where(b"red", "a.png")
    assert scene.place(data(b"red"), "a.webp") == where(b"red", "a.webp")
    assert scene.server.uploads == ["a.png", "a.webp"]


def test_two_jobs_at_once_place_the_same_file_once(scene: Scene) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def let() -> None:
        begun.set()
        assert go_on.wait(LONG)

    scene.server.let = let
    with ThreadPoolExecutor(2) as jobs:
        first = jobs.submit(scene.place, data(b"red"))
        assert begun.wait(LONG)
        second = jobs.submit(scene.place, data(b"red"))
        assert not second.done()
        go_on.set()
        assert first.result(LONG) == second.result(LONG) == where(b"red")
    assert scene.server.uploads == ["a.png"]


def test_what_could_not_be_placed_is_placed_by_the_next_job(scene: Scene) -> None:
    scene.server.errors = [ComfyUIUnavailableError("away")]
    with pytest.raises(ComfyUIUnavailableError):
        scene.place(data(b"red"))
    assert scene.place(data(b"red")) == where(b"red")
    assert scene.server.uploads == ["a.png", "a.png"]


def test_what_is_remembered_has_an_end(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_REMEMBERED", 2)
    scene.store.objects = {name: name.encode() for name in "abc"}
    for name in "abca":
        scene.place(f"s3://b/{name}")
    assert len(scene.server.uploads) == 4
    # The latest are what is known.
    scene.place("s3://b/c")
    scene.place("s3://b/a")
    assert len(scene.server.uploads) == 4
    assert len(scene.store.fetched) == 4


def test_a_job_with_another_file_does_not_wait(scene: Scene) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def let() -> None:
        if not begun.is_set():
            begun.set()
            assert go_on.wait(LONG)

    scene.server.let = let
    slow = data(b"red")
    others = (data(f"blue {number}".encode()) for number in count())
    # Hardly any two have a lock in common; these must not.
    mine = hash(slow) % module._LOCKS
    quick = next(one for one in others if hash(one) % module._LOCKS != mine)
    with ThreadPoolExecutor(2) as jobs:
        first = jobs.submit(scene.place, slow)
        assert begun.wait(LONG)
        jobs.submit(scene.place, quick).result(LONG)
        assert not first.done()
        go_on.set()
        assert first.result(LONG) == where(b"red")


# The server may have lost it


def test_what_the_server_has_lost_is_placed_again(scene: Scene) -> None:
    scene.place(data(b"red"))
    scene.place(data(b"blue"))
    scene.server.files.clear()
    for content in (b"red", b"blue", b"red"):
        assert scene.place(data(content)) == where(content)
    assert len(scene.server.uploads) == 4
    assert sorted(scene.server.files.values()) == [b"blue", b"red"]


def test_a_server_that_does_not_say_is_an_error_of_the_server(scene: Scene) -> None:
    scene.place(data(b"red"))
    scene.server.errors = [ComfyUIUnavailableError("away")]
    with pytest.raises(ComfyUIUnavailableError):
        scene.place(data(b"red"))
    assert scene.place(data(b"red")) == where(b"red")
    assert len(scene.server.uploads) == 1


# Objects


def test_an_object_that_has_not_changed_is_not_fetched_again(scene: Scene) -> None:
    scene.store.objects = {"in/a?b#c": b"red"}
    for _ in range(3):
        assert scene.place("s3://b/in/a?b#c") == where(b"red")
    assert scene.store.fetched == ["in/a?b#c"]
    assert scene.store.stats == ["in/a?b#c"] * 3
    assert scene.server.uploads == ["a.png"]


def test_an_object_that_has_changed_is_fetched(scene: Scene) -> None:
    for content in (b"red", b"blue"):
        scene.store.objects = {"a": content}
        assert scene.place("s3://b/a") == where(content)
    assert scene.store.fetched == ["a", "a"]
    # As it was before: known, and there.
    scene.store.objects = {"a": b"red"}
    assert scene.place("s3://b/a") == where(b"red")
    assert (len(scene.store.fetched), len(scene.server.uploads)) == (2, 2)


def test_an_object_whose_file_is_lost_is_fetched_again(scene: Scene) -> None:
    scene.store.objects = {"a": b"red"}
    scene.place("s3://b/a")
    scene.server.files.clear()
    assert scene.place("s3://b/a") == where(b"red")
    assert (scene.store.fetched, len(scene.server.uploads)) == (["a", "a"], 2)


def test_an_object_that_is_gone_is_an_error_though_its_file_is_there(scene: Scene) -> None:
    scene.store.objects = {"a": b"red"}
    scene.place("s3://b/a")
    scene.store.objects = {}
    with pytest.raises(InvalidInputError, match="there is no object s3://b/a"):
        scene.place("s3://b/a")


def test_a_store_that_is_away_is_an_error_of_the_store(scene: Scene) -> None:
    scene.store.errors = [StorageUnavailableError("away")]
    with pytest.raises(StorageUnavailableError):
        scene.place("s3://b/a")
    assert scene.server.uploads == []


# What is refused


@pytest.mark.parametrize(
    ("source", "asked"),
    [(data(b"x" * (MOST + 1)), []), ("s3://b/a", ["a"])],
    ids=["data", "object"],
)
def test_what_is_too_large_is_not_placed(scene: Scene, source: str, asked: list[str]) -> None:
    scene.store.objects = {"a": b"x" * (MOST + 1)}
    with pytest.raises(InvalidInputError, match=r"has 1,001 bytes, at most 1,000 .*INPUT_MAX"):
        scene.place(source)
    # Nor is it fetched to be measured.
    assert (scene.store.stats, scene.store.fetched, scene.server.uploads) == (asked, [], [])


def test_what_changes_before_it_is_fetched_is_placed_as_it_is_then(scene: Scene) -> None:
    scene.store.objects = {"a": b"red"}
    scene.store.on_get = lambda: setattr(scene.store, "objects", {"a": b"blue"})
    assert scene.place("s3://b/a") == where(b"blue")
    # And known as that.
    assert scene.place("s3://b/a") == where(b"blue")
    assert scene.store.fetched == ["a"]
    scene.store.objects = {"a": b"red"}
    scene.store.on_get = lambda: None
    assert scene.place("s3://b/a") == where(b"red")


@pytest.mark.parametrize(
    ("after", "why"),
    [({"a": b"x" * (2 * MOST)}, "has 1,001 bytes"), ({}, "there is no object s3://b/a")],
    ids=["too large", "gone"],
)
def test_what_is_gone_or_too_large_by_then_is_not_placed(
    scene: Scene, after: dict[str, bytes], why: str
) -> None:
    scene.store.objects = {"a": b"red"}
    scene.store.on_get = lambda: setattr(scene.store, "objects", after)
    with pytest.raises(InvalidInputError, match=why):
        scene.place("s3://b/a")
    assert scene.server.uploads == []


def test_what_is_just_small_enough_is_placed(scene: Scene) -> None:
    content = b"x" * MOST
    scene.store.objects = {"a": content}
    assert scene.place(data(content)) == scene.place("s3://b/a") == where(content)


def test_an_input_that_no_node_uses_is_refused(scene: Scene) -> None:
    with pytest.raises(InvalidInputError, match=r"'b\.png': no node of the workflow"):
        scene.inputs.place(using("a.png"), {"b.png": data(b"red")})
    assert scene.server.uploads == []


@pytest.mark.parametrize("name", ["../a.png", "a\0.png", "/a.png", ".", "a//b", "x" * 201, "a\n"])
def test_a_name_that_leaves_the_folder_or_is_none_is_refused(scene: Scene, name: str) -> None:
    with pytest.raises(InvalidInputError, match="is no name of a file"):
        scene.place(data(b"red"), name)
    assert scene.server.uploads == []


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("data:;base64,%%%", "the data: URL is no valid base64"),
        ("data:image/png", "the data: URL has no comma before its data"),
        ("ftp://x/a.png", "expected a data: URL or s3://b/..."),
        ("s3://other/a.png", "this worker reads bucket 'b' only, not 'other'"),
        ("s3://b/none", "there is no object s3://b/none"),
        ("s3://b/", "there is no object s3://b/"),
        ("s3:b", "this worker reads bucket 'b' only"),
    ],
)
def test_a_source_that_is_none_is_named(scene: Scene, source: str, sentence: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        scene.place(source)
    assert sentence in caught.value.message
    assert (scene.store.fetched, scene.server.uploads) == ([], [])
