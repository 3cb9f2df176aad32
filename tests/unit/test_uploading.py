"""When files are stored, and when again, on a clock of its own."""

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tasks.errors import (
    ComfyUIUnavailableError,
    JobError,
    OutputMissingError,
    OutputTooLargeError,
    StorageDeniedError,
    StorageUnavailableError,
)
from tasks.request import JobRequest
from tasks.result import Output, Thumbnail
from tests.unit.test_patience import STORE_PATIENCE, Clock
from workers.comfyui.model import FileRef
from workers.execution import patience, uploading
from workers.execution.control import Control, WorkerLeaving
from workers.execution.job import Job
from workers.execution.output_bounds import MostOutput
from workers.execution.uploading import Abandoned, Uploads
from workers.logs import context
from workers.storage.store import StoredObject

LONG = 20.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    one = Clock()
    told = SimpleNamespace(monotonic=lambda: one.now, time=lambda: one.now)
    for module in (uploading, patience):
        monkeypatch.setattr(module, "time", told)
    return one


# The files of an attempt


class Server:
    """Has files, and fails to show them as it is told."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.errors: dict[str, list[JobError]] = {}
        self.asked: list[str] = []

    @contextmanager
    def view(self, file: FileRef, check: Callable[[], object]) -> Iterator[BytesIO]:
        self.asked.append(file.filename)
        if errors := self.errors.get(file.filename):
            raise errors.pop(0)
        check()
        yield BytesIO(self.files[file.filename])


class Store:
    """Keeps what it gets, once it has been let."""

    def __init__(self) -> None:
        self.contents: dict[str, bytes] = {}
        self.puts: list[str] = []
        self.errors: list[JobError] = []
        self.begun = threading.Event()
        self.let: Callable[[], object] = lambda: None

    def put(self, key: str, stream: BytesIO) -> StoredObject:
        self.puts.append(key)
        self.begun.set()
        self.let()
        content = b"".join(iter(lambda: stream.read(1000), b""))
        if self.errors:
            raise self.errors.pop(0)
        self.contents[key] = content
        digest = hashlib.sha256(content).hexdigest()
        return StoredObject("b", key, "image/png", len(content), digest)


class Attempt:
    """The uploads of one attempt, and all that they need."""

    def __init__(self, pool: Executor, clock: Control) -> None:
        self.server = Server()
        self.store = Store()
        self.control = clock
        self.pool = pool
        self.most = MostOutput()

    def uploads(self, **options: Any) -> Uploads:
        return Uploads(
            Job(
                id="job",
                request=JobRequest.model_validate({"workflow": {}, "output": options}),
                instance="http://gpu",
                client_id="mine",
                folder="folder/job",
                # It goes on with the prompt of an earlier one.
                number=5,
                prompt=3,
            ),
            pool=self.pool,
            server=self.server,  # type: ignore[arg-type]
            store=self.store,  # type: ignore[arg-type]
            control=self.control,
            storage_patience=STORE_PATIENCE,
            most=self.most,
        )

    def let_one(self) -> None:
        """Wait until all that was begun before is over; there is one who does it."""
        self.pool.submit(lambda: None).result(LONG)


@pytest.fixture
def scene(clock: Clock) -> Iterator[Attempt]:
    """One file at a time."""
    with ThreadPoolExecutor(1) as pool:
        yield Attempt(pool, clock)


def images(*names: str, kind: str = "output") -> dict[str, Any]:
    return {"images": [{"filename": name, "type": kind} for name in names]}


def entry(**outputs: Any) -> dict[str, Any]:
    return {"outputs": {node_id.removeprefix("n"): output for node_id, output in outputs.items()}}


def finished(uploads: Uploads, history: dict[str, Any]) -> list[Output]:
    return [wait() for _, wait in uploads.finish(history)]


def key(node_id: str, index: int, name: str) -> str:
    return f"folder/job/3/{node_id}/{index}-{name}"


def test_an_output_is_stored_under_the_key_of_its_attempt(scene: Attempt) -> None:
    scene.server.files = {"../a cat.png": b"a cat"}
    shots = {"images": [{"filename": "../a cat.png", "subfolder": "shots"}]}
    (output,) = finished(scene.uploads(), entry(n9=shots))
    assert output.key == key("9", 0, "a cat.png")
    assert scene.store.contents == {output.key: b"a cat"}
    assert output.uri == f"s3://b/{output.key}"
    assert (output.node_id, output.kind, output.filename) == ("9", "images", "../a cat.png")
    assert (output.content_type, output.size_bytes) == ("image/png", 5)
    assert output.sha256 == hashlib.sha256(b"a cat").hexdigest()


def test_a_file_is_stored_when_it_is_made_and_not_again(scene: Attempt) -> None:
    scene.server.files = {"a": b"1", "b": b"2"}
    uploads = scene.uploads()
    uploads.begin("9", images("a", "b"))
    scene.let_one()
    assert scene.store.contents == {key("9", 0, "a"): b"1", key("9", 1, "b"): b"2"}
    outputs = finished(uploads, entry(n9=images("a", "b")))
    assert [output.key for output in outputs] == [key("9", 0, "a"), key("9", 1, "b")]
    assert scene.server.asked == ["a", "b"]


def test_whoever_announces_a_file_it_is_stored_for_its_job(
    scene: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    known: list[dict[str, Any]] = []
    monkeypatch.setattr(scene.store, "let", lambda: known.append(dict(context.fields())))
    scene.server.files = {"a": b"1", "b": b"2"}
    with context.about(job_id="job"):
        uploads = scene.uploads()
    # As the websocket's thread, which works for no job.
    uploads.begin("9", images("a"))
    finished(uploads, entry(n9=images("a", "b")))
    assert known == [{"job_id": "job"}] * 2


def test_who_announces_a_file_waits_for_nothing(scene: Attempt) -> None:
    scene.server.files = {"a": b"1"}
    go_on = threading.Event()
    scene.store.let = lambda: go_on.wait(LONG)
    uploads = scene.uploads()
    uploads.begin("9", images("a"))
    assert scene.store.begun.wait(LONG)
    # Nor does who asks at the end, before he wants the file.
    ((file, wait),) = uploads.finish(entry(n9=images("a")))
    assert (file.node_id, scene.store.contents) == ("9", {})
    go_on.set()
    assert wait().key == key("9", 0, "a")


def test_a_file_that_was_never_announced_is_stored_at_the_end(scene: Attempt) -> None:
    # The websocket was cut, or the prompt is somebody else's.
    scene.server.files = {"a": b"1", "b": b"2"}
    uploads = scene.uploads()
    uploads.begin("9", images("a"))
    outputs = finished(uploads, entry(n9=images("a"), n10=images("b")))
    assert [(one.node_id, one.filename) for one in outputs] == [("9", "a"), ("10", "b")]
    assert scene.store.contents == {key("9", 0, "a"): b"1", key("10", 0, "b"): b"2"}
    assert len(scene.store.puts) == 2


def test_a_file_is_read_only_as_long_as_there_is_no_reason_to_end(scene: Attempt) -> None:
    scene.server.files = {"a": b"1"}
    scene.control.stop(WorkerLeaving("x"))
    uploads = scene.uploads()
    uploads.begin("9", images("a"))
    scene.let_one()
    with pytest.raises(WorkerLeaving):
        finished(uploads, entry(n9=images("a")))
    assert scene.store.puts == []


def test_only_what_the_history_names_is_an_output_and_the_rest_is_surplus(scene: Attempt) -> None:
    scene.server.files = {"a": b"1", "b": b"2", "c": b"3"}
    scene.server.errors = {"c": [OutputMissingError("not yet")]}
    uploads = scene.uploads()
    uploads.begin("9", images("a", "b"))
    uploads.begin("10", images("c"))
    pending = uploads.finish(entry(n9=images("a")))
    assert [wait().filename for _, wait in pending] == ["a"]
    scene.let_one()
    # What failed may be there in part.
    surplus = uploads.surplus([file for file, _ in pending], LONG)
    assert surplus == {key("9", 1, "b"), key("10", 0, "c")}


def test_nothing_is_surplus_as_a_rule(scene: Attempt) -> None:
    scene.server.files = {"a": b"1", "b": b"2"}
    uploads = scene.uploads()
    uploads.begin("9", images("a"))
    pending = uploads.finish(entry(n9=images("a"), n10=images("b")))
    assert [wait().filename for _, wait in pending] == ["a", "b"]
    assert uploads.surplus([file for file, _ in pending], LONG) == set()


def test_what_was_overwritten_is_surplus_unless_it_is_replaced(scene: Attempt) -> None:
    scene.server.files = {"a": b"1", "b": b"2"}
    uploads = scene.uploads()
    for node in ("8", "9"):
        uploads.begin(node, images("a"))
        scene.let_one()
    assert scene.server.asked == ["a"]
    # Node 8 has made it, node 9 made it anew and is the one that the history names.
    pending = uploads.finish(entry(n9=images("a")))
    assert [wait().key for _, wait in pending] == [key("9", 0, "a")]
    assert uploads.surplus([file for file, _ in pending], LONG) == {key("8", 0, "a")}
    # Where the key is the same it has the last content.
    uploads = scene.uploads()
    for _ in range(2):
        uploads.begin("8", images("b"))
        scene.let_one()
    pending = uploads.finish(entry(n8=images("b")))
    assert [wait().key for _, wait in pending] == [key("8", 0, "b")]
    assert uploads.surplus([file for file, _ in pending], LONG) == set()


def test_a_key_that_two_files_have_is_no_surplus(scene: Attempt) -> None:
    scene.server.files = {"a": b"1"}
    uploads = scene.uploads()
    uploads.begin("9", {"images": [{"filename": "a", "subfolder": "early"}]})
    scene.let_one()
    pending = uploads.finish(entry(n9={"images": [{"filename": "a", "subfolder": "late"}]}))
    assert [wait().key for _, wait in pending] == [key("9", 0, "a")]
    assert uploads.surplus([file for file, _ in pending], LONG) == set()


def test_who_waits_for_the_store_stores_nothing_once_nobody_wants_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    control = Control()
    pausing = threading.Event()

    def sleep(seconds: float) -> None:
        pausing.set()
        Control.sleep(control, seconds)

    monkeypatch.setattr(control, "sleep", sleep)
    with ThreadPoolExecutor(1) as pool:
        scene = Attempt(pool, control)
        scene.server.files = {"a": b"1"}
        scene.store.errors = [StorageUnavailableError("away")]
        uploads = scene.uploads()
        ((_, wait),) = uploads.finish(entry(n9=images("a")))
        assert pausing.wait(LONG)
        # What it may have stored is known, and it has ended.
        assert uploads.abandon(LONG) == {key("9", 0, "a")}
        with pytest.raises(Abandoned):
            wait()
    assert (scene.store.contents, len(scene.store.puts)) == ({}, 1)


def test_a_great_many_files_are_announced_in_no_time(scene: Attempt) -> None:
    go_on = threading.Event()
    scene.store.let = lambda: go_on.wait(LONG)
    uploads = scene.uploads()
    names = [f"{number}.png" for number in range(20_000)]
    scene.server.files = dict.fromkeys(names, b"x")
    # The processor's time: whatever else the machine does.
    began = time.process_time()
    uploads.begin("9", images(*names))
    assert scene.store.begun.wait(LONG)
    took = time.process_time() - began
    # All but the one that is being stored.
    assert uploads.abandon() == {key("9", 0, "0.png")}
    go_on.set()
    # Each against each of the others would take half a minute.
    assert took < 5


def test_surplus_is_stored_no_more_and_what_is_being_stored_is_waited_for(clock: Clock) -> None:
    go_on = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        scene = Attempt(pool, clock)
        scene.server.files = {"a": b"1", "b": b"2"}
        scene.store.let = lambda: go_on.wait(LONG)
        uploads = scene.uploads()
        uploads.begin("9", images("a", "b"))
        assert scene.store.begun.wait(LONG)
        with ThreadPoolExecutor(1) as other:
            surplus = other.submit(uploads.surplus, [], LONG)
            assert not surplus.done()
            go_on.set()
            assert surplus.result(LONG) == {key("9", 0, "a")}
        assert scene.store.contents == {key("9", 0, "a"): b"1"}
    assert scene.server.asked == ["a"]


@pytest.mark.parametrize(
    ("output", "what"),
    [({}, "nothing"), ({"images": 5, "text": ["a"]}, "no files"), ({"images": [None]}, "garbage")],
)
def test_what_is_no_file_is_none(scene: Attempt, output: Any, what: str) -> None:
    uploads = scene.uploads()
    uploads.begin("9", output)
    assert finished(uploads, entry(n9=output)) == [], what
    assert scene.server.asked == []


@pytest.mark.parametrize("include_temp", [False, True])
def test_previews_are_stored_only_on_request(scene: Attempt, include_temp: bool) -> None:
    scene.server.files = {"early": b"1", "late": b"2", "a": b"3"}
    uploads = scene.uploads(include_temp=include_temp)
    uploads.begin("8", images("early", kind="temp"))
    uploads.begin("9", images("a"))
    scene.let_one()
    assert scene.server.asked == ["early", "a"] if include_temp else ["a"]
    history = entry(n7=images("late", kind="temp"), n8=images("early", kind="temp"), n9=images("a"))
    stored = {one.filename for one in finished(uploads, history)}
    assert stored == ({"early", "late", "a"} if include_temp else {"a"})
    assert len(scene.store.puts) == len(stored)


@pytest.mark.parametrize(
    "error",
    [
        ComfyUIUnavailableError("away"),
        StorageUnavailableError("away"),
        # Announced, but not written to its end.
        OutputMissingError("not yet"),
        StorageDeniedError("not yet"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_could_not_be_stored_early_is_stored_at_the_end(
    scene: Attempt, error: JobError
) -> None:
    scene.server.files = {"a": b"1"}
    scene.server.errors = {"a": [error]}
    uploads = scene.uploads()
    uploads.begin("9", images("a"))
    scene.let_one()
    # It is only a guess: no patience is spent on it.
    assert (scene.server.asked, scene.control.slept) == (["a"], [])
    (output,) = finished(uploads, entry(n9=images("a")))
    assert (output.key, scene.control.slept) == (key("9", 0, "a"), [])
    assert scene.store.contents == {output.key: b"1"}


@pytest.mark.parametrize("announced", [True, False])
def test_at_the_end_an_outage_is_waited_out(scene: Attempt, announced: bool) -> None:
    scene.server.files = {"a": b"1"}
    uploads = scene.uploads()
    if announced:
        scene.server.errors = {"a": [ComfyUIUnavailableError("away")]}
        uploads.begin("9", images("a"))
        scene.let_one()
        assert scene.control.slept == []
    scene.server.errors = {"a": [ComfyUIUnavailableError("away") for _ in range(2)]}
    scene.store.errors = [StorageUnavailableError("away") for _ in range(3)]
    (output,) = finished(uploads, entry(n9=images("a")))
    assert scene.store.contents == {output.key: b"1"}
    assert len(scene.control.slept) == 5


@pytest.mark.parametrize("announced", [True, False])
def test_at_the_end_what_does_not_pass_fails(scene: Attempt, announced: bool) -> None:
    scene.server.errors = {"a": [OutputMissingError("gone") for _ in range(2)]}
    uploads = scene.uploads()
    if announced:
        uploads.begin("9", images("a"))
    with pytest.raises(OutputMissingError):
        finished(uploads, entry(n9=images("a")))
    assert scene.control.slept == []


def test_a_reason_to_end_ends_the_patience_for_a_file(scene: Attempt) -> None:
    scene.server.errors = {"a": [ComfyUIUnavailableError("away") for _ in range(3)]}
    scene.control.stop(WorkerLeaving("x"))
    with pytest.raises(WorkerLeaving):
        finished(scene.uploads(), entry(n9=images("a")))
    assert scene.server.asked == ["a"]


@pytest.mark.parametrize("by", ["9", "10"], ids=["the-same-node", "another-node"])
def test_of_a_file_that_is_written_twice_the_last_content_counts(scene: Attempt, by: str) -> None:
    uploads = scene.uploads()
    scene.server.files = {"a": b"first"}
    uploads.begin("9", images("a"))
    scene.let_one()
    uploads.begin(by, images("a"))
    scene.let_one()
    assert scene.server.asked == ["a"]
    # It may be written on until the prompt has ended.
    scene.server.files = {"a": b"last"}
    (output,) = finished(uploads, entry(n9=images("a"), n10=images("a")))
    assert output.sha256 == hashlib.sha256(b"last").hexdigest()
    assert scene.store.contents == {key("9", 0, "a"): b"last"}


def test_a_file_that_is_written_many_times_is_stored_early_once(scene: Attempt) -> None:
    scene.server.files = {"a": b"first"}
    uploads = scene.uploads()
    for _ in range(4):
        uploads.begin("9", images("a"))
        scene.let_one()
    assert scene.server.asked == ["a"]
    scene.server.files = {"a": b"last"}
    finished(uploads, entry(n9=images("a")))
    assert scene.store.contents == {key("9", 0, "a"): b"last"}


@pytest.mark.parametrize("times", [1, 2])
def test_what_is_under_way_of_an_earlier_content_does_not_replace_the_last(
    clock: Clock, times: int
) -> None:
    pauses = iter([0.1])
    with ThreadPoolExecutor(2) as pool:
        scene = Attempt(pool, clock)
        scene.server.files = {"a": b"first"}
        # Long enough for the next one to overtake it, if it does not wait.
        scene.store.let = lambda: threading.Event().wait(next(pauses, 0.0))
        uploads = scene.uploads()
        uploads.begin("9", images("a"))
        assert scene.store.begun.wait(LONG)
        for _ in range(times):
            uploads.begin("9", images("a"))
        scene.server.files = {"a": b"last"}
        (output,) = finished(uploads, entry(n9=images("a")))
    assert output.sha256 == hashlib.sha256(b"last").hexdigest()
    assert scene.store.contents == {key("9", 0, "a"): b"last"}


def test_nor_does_what_is_under_way_of_another_file_of_the_same_key(clock: Clock) -> None:
    pauses = iter([0.1])
    with ThreadPoolExecutor(2) as pool:
        scene = Attempt(pool, clock)
        scene.server.files = {"a": b"first"}
        scene.store.let = lambda: threading.Event().wait(next(pauses, 0.0))
        uploads = scene.uploads()
        early = {"images": [{"filename": "a", "subfolder": "early"}]}
        uploads.begin("9", early)
        assert scene.store.begun.wait(LONG)
        # Made anew by another node, and by this one in another folder.
        uploads.begin("8", early)
        scene.server.files = {"a": b"last"}
        late = {"images": [{"filename": "a", "subfolder": "late"}]}
        (output,) = finished(uploads, entry(n9=late))
    assert scene.store.contents == {output.key: b"last"}


# Those of an attempt that came to nothing


def test_who_is_abandoned_stores_nothing_more_and_says_what_may_be_there(scene: Attempt) -> None:
    scene.server.files = {"a": b"1", "b": b"2", "c": b"3", "d": b"4"}
    go_on = threading.Event()
    uploads = scene.uploads()
    uploads.begin("7", images("a"))
    scene.let_one()
    scene.store.begun.clear()
    scene.store.let = lambda: go_on.wait(LONG)
    uploads.begin("8", images("b", "c"))
    assert scene.store.begun.wait(LONG)
    assert uploads.abandon() == {key("7", 0, "a"), key("8", 0, "b")}
    uploads.begin("9", images("d"))
    go_on.set()
    scene.let_one()
    assert scene.server.asked == ["a", "b"]


def test_what_failed_early_may_be_there_in_part(scene: Attempt) -> None:
    scene.server.files = {"a": b"1"}
    scene.store.errors = [StorageUnavailableError("the answer was lost")]
    uploads = scene.uploads()
    uploads.begin("9", images("a"))
    scene.let_one()
    assert uploads.abandon() == {key("9", 0, "a")}


def test_who_abandons_can_wait_for_what_is_being_stored(scene: Attempt) -> None:
    scene.server.files = {"a": b"1"}
    go_on = threading.Event()
    scene.store.let = lambda: go_on.wait(LONG)
    uploads = scene.uploads()
    uploads.begin("9", images("a"))
    assert scene.store.begun.wait(LONG)
    with ThreadPoolExecutor(1) as other:
        abandoning = other.submit(uploads.abandon, LONG)
        assert not abandoning.done()
        go_on.set()
        assert abandoning.result(LONG) == {key("9", 0, "a")}
    assert scene.store.contents == {key("9", 0, "a"): b"1"}


def test_what_is_stored_at_the_end_is_abandoned_with_the_rest(scene: Attempt) -> None:
    scene.server.files = {"a": b"1", "b": b"2"}
    scene.server.errors = {"b": [OutputMissingError("gone")]}
    uploads = scene.uploads()
    with pytest.raises(OutputMissingError):
        finished(uploads, entry(n8=images("a"), n9=images("b")))
    assert uploads.abandon(LONG) == {key("8", 0, "a"), key("9", 0, "b")}


def test_what_was_overwritten_may_be_there_as_well(scene: Attempt) -> None:
    scene.server.files = {"a": b"1"}
    uploads = scene.uploads()
    uploads.begin("8", images("a"))
    scene.let_one()
    uploads.begin("9", images("a"))
    assert uploads.abandon(LONG) == {key("8", 0, "a")}


def test_nothing_is_abandoned_where_nothing_was_begun(scene: Attempt) -> None:
    assert scene.uploads().abandon(LONG) == set()


# Several at the same time


@pytest.mark.parametrize("announced", [True, False], ids=["early", "at-the-end"])
def test_files_are_stored_at_the_same_time(clock: Clock, announced: bool) -> None:
    names = ["a", "b", "c"]
    together = threading.Barrier(len(names))
    with ThreadPoolExecutor(len(names)) as pool:
        scene = Attempt(pool, clock)
        scene.server.files = {name: name.encode() for name in names}
        # One after the other they would wait for each other in vain.
        scene.store.let = lambda: together.wait(LONG)
        uploads = scene.uploads()
        if announced:
            uploads.begin("9", images(*names))
        outputs = finished(uploads, entry(n9=images(*names)))
    assert [output.filename for output in outputs] == names
    assert scene.store.contents == {
        key("9", index, name): name.encode() for index, name in enumerate(names)
    }


# What is made of them on the way


def picture() -> bytes:
    texts, stream = PngInfo(), BytesIO()
    texts.add_text("prompt", "a secret workflow")
    Image.new("RGB", (64, 32), "red").save(stream, "PNG", pnginfo=texts)
    return stream.getvalue()


def small(node_id: str, index: int, name: str) -> str:
    return f"folder/job/3/{node_id}/{index}.thumbnail-{name}.webp"


@pytest.mark.parametrize("announced", [True, False], ids=["early", "at-the-end"])
def test_a_picture_has_its_thumbnail_beside_it_and_is_read_once(
    scene: Attempt, announced: bool
) -> None:
    scene.server.files = {"a": picture()}
    uploads = scene.uploads(thumbnail=16)
    if announced:
        uploads.begin("9", images("a"))
        scene.let_one()
        assert scene.store.contents.keys() == {key("9", 0, "a"), small("9", 0, "a")}
    (output,) = finished(uploads, entry(n9=images("a")))
    content = scene.store.contents[small("9", 0, "a")]
    assert output.thumbnail == Thumbnail(
        bucket="b",
        key=small("9", 0, "a"),
        uri=f"s3://b/{small('9', 0, 'a')}",
        content_type="image/png",  # as this store has it of everything
        width=16,
        height=8,
        size_bytes=len(content),
    )
    assert (Image.open(BytesIO(content)).format, output.stripped) == ("WEBP", None)
    assert scene.store.contents[output.key] == picture()
    assert (scene.server.asked, len(scene.store.puts)) == (["a"], 2)


def test_who_wants_no_thumbnail_has_none(scene: Attempt) -> None:
    scene.server.files = {"a": picture()}
    (output,) = finished(scene.uploads(), entry(n9=images("a")))
    assert (output.thumbnail, scene.store.puts) == (None, [key("9", 0, "a")])


@pytest.mark.parametrize(
    ("content", "warning"),
    [
        (b"a cat", None),
        (picture()[:60], "a of node 9 has no thumbnail: it cannot be read"),
    ],
    ids=["no picture", "a broken one"],
)
def test_where_there_can_be_no_thumbnail_the_file_is_stored_and_the_log_says_why(
    scene: Attempt, caplog: pytest.LogCaptureFixture, content: bytes, warning: str | None
) -> None:
    scene.server.files = {"a": content}
    (output,) = finished(scene.uploads(thumbnail=16), entry(n9=images("a")))
    assert output.thumbnail is None
    assert scene.store.contents == {key("9", 0, "a"): content}
    assert (warning or "") in caplog.text
    assert bool(caplog.text) is bool(warning)


def test_metadata_is_left_out_and_size_and_digest_are_of_what_is_stored(
    scene: Attempt, caplog: pytest.LogCaptureFixture
) -> None:
    scene.server.files = {"a": picture()}
    (output,) = finished(scene.uploads(strip_metadata=True), entry(n9=images("a")))
    stored = scene.store.contents[output.key]
    assert b"secret" not in stored
    assert (output.stripped, output.size_bytes) == (True, len(stored))
    assert output.sha256 == hashlib.sha256(stored).hexdigest()
    assert caplog.text == ""


def test_what_cannot_be_stripped_is_stored_and_the_output_and_the_log_say_so(
    scene: Attempt, caplog: pytest.LogCaptureFixture
) -> None:
    scene.server.files = {"a": b"a cat"}
    (output,) = finished(scene.uploads(strip_metadata=True), entry(n9=images("a")))
    assert (output.stripped, scene.store.contents[output.key]) == (False, b"a cat")
    assert "a of node 9 is stored with its metadata" in caplog.text


def refusing_the_thumbnail(error: JobError) -> Callable[[], None]:
    """The file itself gets into the store, and later everything."""
    answers = iter([None, error])

    def answer() -> None:
        if (error := next(answers, None)) is not None:
            raise error

    return answer


def test_a_store_that_refuses_no_more_than_the_thumbnail_has_the_file(
    scene: Attempt, caplog: pytest.LogCaptureFixture
) -> None:
    scene.server.files = {"a": picture()}
    scene.store.let = refusing_the_thumbnail(StorageDeniedError("no small ones"))
    (output,) = finished(scene.uploads(thumbnail=16), entry(n9=images("a")))
    assert (output.thumbnail, scene.store.contents.keys()) == (None, {key("9", 0, "a")})
    assert "a of node 9 has no thumbnail: no small ones" in caplog.text


def test_a_store_that_is_away_has_its_thumbnails_later(scene: Attempt) -> None:
    scene.server.files = {"a": picture()}
    scene.store.let = refusing_the_thumbnail(StorageUnavailableError("away"))
    (output,) = finished(scene.uploads(thumbnail=16), entry(n9=images("a")))
    assert output.thumbnail
    assert scene.store.contents.keys() == {key("9", 0, "a"), small("9", 0, "a")}


def test_thumbnails_are_abandoned_and_surplus_with_their_files(scene: Attempt) -> None:
    scene.server.files = {"a": picture(), "b": picture()}
    uploads = scene.uploads(thumbnail=16)
    uploads.begin("9", images("a", "b"))
    pending = uploads.finish(entry(n9=images("a")))
    for _, wait in pending:
        wait()
    scene.let_one()
    surplus = uploads.surplus([file for file, _ in pending], LONG)
    assert surplus == {key("9", 1, "b"), small("9", 1, "b")}
    assert uploads.abandon(LONG) == surplus | {key("9", 0, "a"), small("9", 0, "a")}


# How much


def test_more_files_than_allowed_are_not_stored(scene: Attempt) -> None:
    scene.most = MostOutput(count=2)
    scene.server.files = {"a": b"1", "b": b"2", "c": b"3"}
    uploads = scene.uploads()
    uploads.begin("9", images("a", "b", "c"))
    scene.let_one()
    # Nor are they begun.
    assert len(scene.store.puts) == 2
    with pytest.raises(OutputTooLargeError, match="made 3 files, at most 2 are allowed"):
        uploads.finish(entry(n9=images("a", "b", "c")))
    assert len(finished(uploads, entry(n9=images("a", "b")))) == 2


def test_a_file_that_is_too_large_is_read_no_further_and_not_again(scene: Attempt) -> None:
    scene.most = MostOutput(file_bytes=2000)
    scene.server.files = {"a": b"x" * 2000, "b": b"x" * 2001}
    uploads = scene.uploads()
    uploads.begin("9", images("a", "b"))
    with pytest.raises(OutputTooLargeError, match="node 9 made a file of more than 2,000 bytes"):
        finished(uploads, entry(n9=images("a", "b")))
    assert scene.server.asked == ["a", "b"]
    assert list(scene.store.contents) == [key("9", 0, "a")]
