"""Where input files are placed and when they are not placed again, with clients of paper."""

import base64
import hashlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import IO, Any

import pytest

from tasks.errors import (
    ComfyUIUnavailableError,
    InputUnavailableError,
    InvalidInputError,
    JobCancelledError,
    JobError,
    StorageUnavailableError,
)
from workers.comfyui.model import FileRef
from workers.inputs import Inputs, Sources
from workers.inputs import inputs as module
from workers.storage.store import OpenObject
from workers.web import Answer, WebError

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
        self, filename: str, content: IO[bytes], *, subfolder: str, overwrite: bool = False
    ) -> FileRef:
        # Somebody may be reading what is there.
        assert not overwrite
        self.uploads.append(filename)
        self.let()
        if self.errors:
            raise self.errors.pop(0)
        file = FileRef(filename, subfolder, "input")
        content.seek(0)
        self.files[file] = content.read()
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
        self.asked: list[str] = []
        self.fetched: list[str] = []
        self.on_read: Let = lambda: None
        self.errors: list[JobError] = []

    @contextmanager
    def opened(self, key: str, etag: str = "") -> Iterator[OpenObject | None]:
        self.asked.append(key)
        if self.errors:
            raise self.errors.pop(0)
        content = self.objects.get(key)
        if content is None:
            yield None
        elif etag == _etag(content):
            yield OpenObject(iter(()), 0, etag, changed=False)
        else:
            yield OpenObject(self._read(key, content), len(content), _etag(content))

    def _read(self, key: str, content: bytes) -> Iterator[bytes]:
        self.fetched.append(key)
        for piece in batched(content):
            self.on_read()
            yield piece


class Web:
    """Hosts that have what they are told, some with a tag."""

    def __init__(self) -> None:
        self.contents: dict[str, tuple[bytes, str]] = {}
        self.asked: list[tuple[str, str]] = []
        self.fetched: list[str] = []

    @contextmanager
    def get(self, url: str, etag: str = "") -> Iterator[Answer]:
        self.asked.append((url, etag))
        content, tag = self.contents[url]
        if etag and etag == tag:
            yield Answer(iter(()), changed=False)
        else:
            self.fetched.append(url)
            yield Answer(iter(batched(content)), None, tag)


def batched(content: bytes, size: int = 300) -> list[bytes]:
    return [content[start : start + size] for start in range(0, len(content), size)]


def _etag(content: bytes) -> str:
    return f'"{hashlib.md5(content).hexdigest()}"'


class Scene:
    """One server's inputs."""

    def __init__(self) -> None:
        self.server = Server()
        self.store = Store()
        self.web = Web()
        sources = Sources(stores={"b": self.store}, web=self.web)  # type: ignore[arg-type, dict-item]
        self.inputs = Inputs(
            comfyui=self.server,  # type: ignore[arg-type]
            sources=sources,
            max_bytes=MOST,
            max_total_bytes=2 * MOST,
            max_count=4,
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
    return {n: {"class_type": "Load", "inputs": inputs} for n, inputs in nodes.items()}


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
    assert (scene.server.uploads, scene.store.asked) == ([], [])


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
    slow, quick = data(b"red"), data(b"blue")
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


# Objects and the web


@pytest.mark.parametrize("source", ["s3://b/in/a?b#c", "https://h/a.png"])
def test_what_has_not_changed_is_not_fetched_again(scene: Scene, source: str) -> None:
    scene.store.objects = {"in/a?b#c": b"red"}
    scene.web.contents = {"https://h/a.png": (b"red", '"1"')}
    for _ in range(3):
        assert scene.place(source) == where(b"red")
    assert len(scene.store.fetched + scene.web.fetched) == 1
    # Each time somebody says that it is still there, and still ours to have.
    assert len(scene.store.asked + scene.web.asked) == 3
    assert scene.server.uploads == ["a.png"]


def test_an_object_that_has_changed_is_fetched(scene: Scene) -> None:
    for content in (b"red", b"blue", b"red"):
        scene.store.objects = {"a": content}
        assert scene.place("s3://b/a") == where(content)
    assert scene.store.fetched == ["a"] * 3
    # As it was before: there.
    assert len(scene.server.uploads) == 2


def test_what_the_web_gives_no_tag_is_fetched_each_time_and_placed_once(scene: Scene) -> None:
    scene.web.contents = {"https://h/a": (b"red", "")}
    for _ in range(2):
        assert scene.place("https://h/a") == where(b"red")
    assert scene.web.asked == [("https://h/a", "")] * 2
    assert scene.server.uploads == ["a.png"]


@pytest.mark.parametrize("source", ["s3://b/a", "https://h/a"])
def test_what_is_known_but_lost_on_the_server_is_fetched_again(scene: Scene, source: str) -> None:
    scene.store.objects = {"a": b"red"}
    scene.web.contents = {"https://h/a": (b"red", '"1"')}
    scene.place(source)
    scene.server.files.clear()
    assert scene.place(source) == where(b"red")
    assert len(scene.store.fetched + scene.web.fetched) == 2
    assert len(scene.server.uploads) == 2


def test_what_is_known_is_checked_for_the_node_that_uses_it(scene: Scene) -> None:
    scene.web.contents = {"https://h/a": (b"some text", '"1"')}
    scene.place("https://h/a")
    picture = {"1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}}}
    with pytest.raises(InvalidInputError, match=r"node 1 \(LoadImage\) loads an image, found text"):
        scene.inputs.place(picture, {"a.png": "https://h/a"})
    assert scene.web.fetched == ["https://h/a"]


def test_whoever_does_not_want_the_job_any_more_ends_the_fetch(scene: Scene) -> None:
    scene.store.objects = {"a": b"x" * MOST}
    calls: list[None] = []

    def check() -> None:
        calls.append(None)
        if len(calls) == 2:
            raise JobCancelledError("revoked")

    with pytest.raises(JobCancelledError):
        scene.inputs.place(using("a.png"), {"a.png": "s3://b/a"}, check)
    assert scene.server.uploads == []


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
    ("source", "size"),
    [(data(b"x" * (MOST + 1)), "1,001"), ("s3://b/a", "1,001"), ("https://h/a", "more than 1,000")],
    ids=["data", "object", "web"],
)
def test_what_is_too_large_is_not_placed(scene: Scene, source: str, size: str) -> None:
    scene.store.objects = {"a": b"x" * (MOST + 1)}
    scene.web.contents = {"https://h/a": (b"x" * (MOST + 1), "")}
    with pytest.raises(InvalidInputError, match=rf"has {size} bytes, at most 1,000 .*INPUT_MAX"):
        scene.place(source)
    # Nor is it fetched to be measured where its size is known.
    assert (scene.store.fetched, scene.server.uploads) == ([], [])


def test_what_is_just_small_enough_is_placed(scene: Scene) -> None:
    content = b"x" * MOST
    scene.store.objects = {"a": content}
    assert scene.place(data(content)) == scene.place("s3://b/a") == where(content)


def test_an_input_that_no_node_uses_is_refused(scene: Scene) -> None:
    with pytest.raises(InvalidInputError, match=r"'b\.png': no node of the workflow"):
        scene.inputs.place(using("a.png"), {"b.png": data(b"red")})
    assert scene.server.uploads == []


def test_a_name_that_is_none_is_refused_before_anything_is_fetched(scene: Scene) -> None:
    with pytest.raises(InvalidInputError, match="is no name of a file"):
        scene.inputs.place(using("a", "../a"), {"a": "s3://b/a", "../a": "s3://b/a"})
    assert (scene.store.asked, scene.server.uploads) == ([], [])


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("data:;base64,%%%", "the data: URL is no valid base64"),
        ("data:image/png", "the data: URL has no comma before its data"),
        ("ftp://x/a.png", "expected an https://, s3:// or data: URL, found 'ftp:"),
        ("s3://other/a.png", "found bucket 'other', expected b (INPUT_BUCKETS"),
        ("s3://b/none", "there is no object s3://b/none"),
        ("s3://b/", "there is no object s3://b/"),
        ("s3:b/a", "expected an https://, s3:// or data: URL, found 's3:b/a'"),
        ("s3:///a", "found bucket '', expected b"),
    ],
)
def test_a_source_that_is_none_is_named(scene: Scene, source: str, sentence: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        scene.place(source)
    assert sentence in caught.value.message
    assert (scene.store.fetched, scene.server.uploads) == ([], [])


def test_who_waited_for_a_source_that_cannot_be_had_does_not_try_it_again(
    monkeypatch: pytest.MonkeyPatch, scene: Scene
) -> None:
    trying, go_on = threading.Event(), threading.Event()

    @contextmanager
    def silent(url: str, etag: str = "") -> Iterator[Answer]:
        scene.web.asked.append((url, etag))
        trying.set()
        assert go_on.wait(LONG)
        raise WebError("is silent")
        yield

    monkeypatch.setattr(scene.web, "get", silent)
    waiting = threading.Event()
    source = {"a.png": "https://silent/a.png"}
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(scene.inputs.place, using("a.png"), source)
        assert trying.wait(LONG)
        monkeypatch.setattr(module, "_CHECK_SECONDS", 0.01)
        second = pool.submit(scene.inputs.place, using("a.png"), source, waiting.set)
        # It looks at whether it is still to wait.
        assert waiting.wait(LONG)
        go_on.set()
        for one in (first, second):
            with pytest.raises(InputUnavailableError, match="is silent"):
                one.result(LONG)
    assert len(scene.web.asked) == 1
    scene.inputs._failed.clear()
    with pytest.raises(InputUnavailableError):
        scene.inputs.place(using("a.png"), source)
    assert len(scene.web.asked) == 2


def test_too_many_inputs_are_refused_before_any_is_fetched(scene: Scene) -> None:
    names = [f"{n}.png" for n in range(5)]
    scene.web.contents = {}
    inputs = dict.fromkeys(names, "https://files.example/none")
    with pytest.raises(InvalidInputError, match="has 5 inputs, at most 4 are allowed"):
        scene.inputs.place(using(*names), inputs)
    assert scene.web.asked == []


def test_inputs_that_are_too_large_together_are_refused(scene: Scene) -> None:
    names = ["a.png", "b.png", "c.png"]
    inputs = {name: data(bytes([n]) * MOST) for n, name in enumerate(names)}
    assert scene.inputs.place(using(*names[:2]), dict(list(inputs.items())[:2]))
    with pytest.raises(InvalidInputError, match=r"up to 'c.png' have .*INPUT_MAX_TOTAL_BYTES"):
        scene.inputs.place(using(*names), inputs)
