"""One attempt on paper: who takes a prompt back, and what becomes of files that came to nothing."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, Self

import pytest

from tasks.errors import (
    JobCancelledError,
    JobError,
    NodeFailedError,
    OutputMissingError,
    StorageDeniedError,
    StorageUnavailableError,
)
from tasks.request import JobRequest
from tasks.result import JobResult, Progress
from workers.comfyui import Notifications
from workers.comfyui.model import PromptQueue, PromptState
from workers.execution import Executor, waiting
from workers.execution import executor as module
from workers.execution.control import Spared, WorkerLeaving
from workers.execution.job import AttemptFailed, Job, Start, prompt_id
from workers.execution.keeper import Keeper, Lease, Phase
from workers.ledger import Claimed, Record
from workers.storage.store import ObjectStat, StoredObject

WORKFLOW = {"9": {"class_type": "SaveImage", "inputs": {}}}
PROMPT = prompt_id("job", 1)
LONG = 20.0
HERE, THERE = "http://here", "http://there"
SUCCESS = {"status": {"status_str": "success"}}
FAILURE = {
    "status": {
        "status_str": "error",
        "messages": [["execution_error", {"node_id": "9", "exception_type": "ValueError"}]],
    }
}


def images(*names: str) -> dict[str, Any]:
    return {"images": [{"filename": name} for name in names]}


def key(name: str, index: int = 0) -> str:
    return f"job/1/9/{index}-{name}"


class Server:
    """A ComfyUI with one prompt, which goes on a step each time that somebody looks at it."""

    def __init__(self, base_url: str = HERE) -> None:
        self.base_url = base_url
        self.state = PromptState.UNKNOWN
        self.running = False
        self.entry: dict[str, Any] | None = {**SUCCESS, "outputs": {"9": images("a")}}
        # What happens at each look, the last one at all that follow.
        self.steps: list[Callable[[], object]] = [self.end]
        self.on_submit: Callable[[], object] = lambda: None
        self.on_delete: Callable[[], object] = self.vanish
        self.on_view: Callable[[], object] = lambda: None
        self.submitted: list[str] = []
        self.deleted: list[str] = []
        self.cancelled: list[str] = []

    def run(self) -> None:
        self.running = True

    def end(self) -> None:
        if self.state is PromptState.QUEUED:
            self.state = PromptState.ENDED

    def vanish(self) -> None:
        self.state = PromptState.UNKNOWN

    def submit(self, _: Any, prompt: str, client_id: str) -> None:
        assert client_id == "mine"
        self.submitted.append(prompt)
        self.state = PromptState.QUEUED
        self.on_submit()

    def history(self, _: str) -> dict[str, Any] | None:
        return self.entry if self.state is PromptState.ENDED else None

    def queue(self) -> PromptQueue:
        if self.state is not PromptState.QUEUED:
            return PromptQueue((), ())
        seen = PromptQueue((PROMPT,), ()) if self.running else PromptQueue((), (PROMPT,))
        (self.steps.pop(0) if len(self.steps) > 1 else self.steps[0])()
        return seen

    def state_of(self, _: str) -> PromptState:
        return self.state

    def delete_from_queue(self, prompts: list[str]) -> None:
        self.deleted.extend(prompts)
        self.on_delete()

    def try_cancel(self, prompt: str) -> bool:
        self.cancelled.append(prompt)
        self.vanish()
        return True

    @contextmanager
    def view(self, file: Any) -> Iterator[bytes]:
        self.on_view()
        yield file.filename.encode()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Store:
    """Keeps what it gets."""

    bucket = "b"

    def __init__(self) -> None:
        self.contents: dict[str, bytes] = {}
        self.errors: list[JobError] = []

    def put(self, key: str, content: bytes) -> StoredObject:
        if self.errors:
            raise self.errors.pop(0)
        self.contents[key] = content
        return StoredObject("b", key, "image/png", len(content), "abc")

    def create(self, key: str, content: bytes, _: str) -> bool:
        self.contents[key] = content
        return True

    def stat(self, key: str) -> ObjectStat | None:
        return ObjectStat(1, "x") if key in self.contents else None

    def delete(self, keys: list[str]) -> None:
        if self.errors:
            raise self.errors.pop(0)
        for key in keys:
            self.contents.pop(key, None)

    def delete_folder(self, folder: str) -> None:
        assert folder == "job"
        self.contents.clear()

    @property
    def files(self) -> set[str]:
        """What is stored beside the manifest."""
        return self.contents.keys() - {"job/manifest.json"}


class Scene:
    """A worker that has just claimed a job."""

    def __init__(self, uploaders: ThreadPoolExecutor) -> None:
        self.server, self.there = Server(), Server(THERE)
        self.store = Store()
        self.uploaders = uploaders
        self.notifications = Notifications(HERE, "mine")
        self.told: list[Progress] = []
        self.phases: list[Phase] = []
        self.keeper = Keeper(
            None,  # type: ignore[arg-type]
            HERE,
            takes_jobs=lambda: True,
            stop_prompt=lambda _: True,
        )
        record = Record(place=HERE, instance=HERE, client_id="mine", folder="job")
        self.claim = Claimed(1, 5000.0, is_new=True, owner_died=False, record=record)
        self.lease: Lease

    def tell(self, node_id: str, *names: str) -> None:
        """Have a node's files told over the websocket."""
        data = {"prompt_id": PROMPT, "node": node_id, "output": images(*names)}
        self.notifications._dispatch(json.dumps({"type": "executed", "data": data}).encode())

    def announce(self, node_id: str, *names: str) -> None:
        """The same, and have them stored as far as that goes."""
        self.tell(node_id, *names)
        self.uploaders.submit(lambda: None).result(LONG)

    @contextmanager
    def holding(self) -> Iterator[Lease]:
        with self.keeper.holding("job", self.claim, time.monotonic()) as self.lease:
            yield self.lease

    def attempt(self, start: Start = Start.SUBMIT) -> JobResult:
        executor = Executor(
            comfyui=self.server,  # type: ignore[arg-type]
            notifications=self.notifications,
            listen_as=None,  # type: ignore[arg-type]
            server_at={THERE: self.there}.__getitem__,  # type: ignore[arg-type]
            breaker=SimpleNamespace(suspect=None),  # type: ignore[arg-type]
            keeper=self.keeper,
            store=self.store,  # type: ignore[arg-type]
            inputs=SimpleNamespace(place=lambda workflow, _: workflow),  # type: ignore[arg-type]
            uploaders=self.uploaders,
            worker="w",
            prefix="",
            workflow_max_bytes=10**6,
            stall_seconds=60.0,
            s3_patience_seconds=0.0,
        )
        job = Job(
            id="job",
            request=JobRequest(workflow=WORKFLOW),
            instance=THERE if start is Start.COLLECT else HERE,
            client_id="mine",
            folder="job",
            start=start,
        )

        def report(progress: Progress) -> None:
            self.told.append(progress)
            self.phases.append(self.lease.phase)

        return executor.run(job, self.lease, report)


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    monkeypatch.setattr(waiting, "POLL_DEAF", 0.0)
    with ThreadPoolExecutor(1) as uploaders:
        yield Scene(uploaders)


def test_an_attempt_from_its_prompt_to_its_files(scene: Scene) -> None:
    scene.server.steps = [scene.server.run, scene.server.end]
    with scene.holding():
        result = scene.attempt()
    assert scene.server.submitted == [PROMPT]
    assert [output.key for output in result.outputs] == [key("a")]
    assert scene.store.files == {key("a")}
    assert [one.stage for one in scene.told] == ["staging", "queued", "executing", "uploading"]
    assert scene.phases == [Phase.WAITING, Phase.WAITING, Phase.EXECUTING, Phase.STORING]


def test_what_was_executed_elsewhere_needs_no_gpu(scene: Scene) -> None:
    scene.there.state = PromptState.ENDED
    with scene.holding() as lease:
        scene.attempt(Start.COLLECT)
        assert lease.phase is Phase.STORING
    assert scene.phases[-1] is Phase.STORING


# Wanted elsewhere


def test_a_job_that_is_wanted_elsewhere_is_not_queued(scene: Scene) -> None:
    with scene.holding() as lease:
        scene.keeper.hand_over(lease)
        with pytest.raises(Spared):
            scene.attempt()
    assert (scene.server.submitted, scene.server.deleted) == ([], [])
    assert scene.store.contents == {}


def test_a_prompt_that_waits_is_taken_out_of_the_queue(scene: Scene) -> None:
    scene.server.steps = [lambda: scene.keeper.hand_over(scene.lease)]
    with scene.holding() as lease:
        with pytest.raises(Spared):
            scene.attempt()
        assert lease.prompt_stopped
    assert scene.server.deleted == [PROMPT]
    # There is nothing more to stop.
    assert scene.server.cancelled == []


def test_a_prompt_that_begins_just_then_stays(scene: Scene) -> None:
    server = scene.server
    server.steps = [lambda: scene.keeper.hand_over(scene.lease), server.end]
    server.on_delete = server.run
    with scene.holding() as lease:
        assert [output.key for output in scene.attempt().outputs] == [key("a")]
        assert (lease.prompt_stopped, lease.control.wanted_elsewhere) == (False, False)
    assert server.deleted == [PROMPT]


def test_a_prompt_that_ends_just_then_is_as_good_as_any(scene: Scene) -> None:
    server = scene.server
    server.steps = [lambda: scene.keeper.hand_over(scene.lease)]
    server.on_delete = server.end
    with scene.holding() as lease:
        assert [output.key for output in scene.attempt().outputs] == [key("a")]
        assert not lease.prompt_stopped


def test_a_prompt_that_executes_is_left_alone(scene: Scene) -> None:
    server = scene.server
    server.running = True
    server.steps = [lambda: scene.keeper.hand_over(scene.lease), lambda: None, server.end]
    with scene.holding():
        assert [output.key for output in scene.attempt().outputs] == [key("a")]
    assert server.deleted == []


def test_an_adopted_prompt_that_waits_may_go_elsewhere(scene: Scene) -> None:
    scene.server.state = PromptState.QUEUED
    scene.server.steps = [lambda: scene.keeper.hand_over(scene.lease)]
    with scene.holding() as lease:
        with pytest.raises(Spared):
            scene.attempt(Start.ADOPT)
        assert lease.prompt_stopped
    assert scene.server.deleted == [PROMPT]


# Files of an attempt that came to nothing


def test_what_a_failed_attempt_has_stored_early_is_removed(scene: Scene) -> None:
    scene.server.on_submit = lambda: scene.announce("9", "a", "b")
    scene.server.entry = FAILURE
    with scene.holding():
        with pytest.raises(AttemptFailed) as caught:
            scene.attempt()
    assert type(caught.value.error) is NodeFailedError
    assert scene.store.contents == {}


@pytest.mark.parametrize(
    "error", [StorageUnavailableError("away"), StorageDeniedError("no")], ids=lambda e: repr(e)[:16]
)
def test_what_is_stored_of_a_prompt_that_is_collected_later_stays(
    scene: Scene, error: JobError
) -> None:
    scene.server.on_submit = lambda: scene.announce("9", "a")
    scene.server.entry = {**SUCCESS, "outputs": {"9": images("a", "b")}}
    scene.server.steps = [lambda: (scene.store.errors.append(error), scene.server.end())]
    with scene.holding():
        with pytest.raises(AttemptFailed) as caught:
            scene.attempt()
    assert caught.value.error is error
    assert scene.store.contents.keys() == {key("a")}


def test_nothing_is_removed_of_a_job_that_others_may_have(scene: Scene) -> None:
    def end_too_late() -> None:
        scene.server.end()
        scene.lease.valid_until = float("-inf")

    scene.server.on_submit = lambda: scene.announce("9", "a")
    scene.server.entry = FAILURE
    scene.server.steps = [end_too_late]
    with scene.holding():
        with pytest.raises(AttemptFailed):
            scene.attempt()
    assert scene.store.contents.keys() == {key("a")}


def test_who_is_handed_on_leaves_what_is_stored(scene: Scene) -> None:
    scene.server.on_submit = lambda: scene.announce("9", "a")
    scene.server.steps = [lambda: scene.lease.control.stop(WorkerLeaving("x"))]
    with scene.holding():
        with pytest.raises(WorkerLeaving):
            scene.attempt()
    # Whoever goes on with the prompt stores the same.
    assert scene.store.contents.keys() == {key("a")}


def test_who_is_handed_on_waits_for_no_file(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()
    monkeypatch.setattr(module, "_ABANDON_SECONDS", 3600.0)

    def slowly() -> None:
        begun.set()
        assert go_on.wait(LONG)

    def leave() -> None:
        assert begun.wait(LONG)
        scene.lease.control.stop(WorkerLeaving("x"))

    scene.server.on_view = slowly
    scene.server.on_submit = lambda: scene.tell("9", "a")
    scene.server.steps = [leave]
    with scene.holding():
        with pytest.raises(WorkerLeaving):
            scene.attempt()
    go_on.set()


def test_what_is_under_way_when_the_attempt_fails_is_removed_as_well(scene: Scene) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slowly() -> None:
        begun.set()
        assert go_on.wait(LONG)

    def end() -> None:
        assert begun.wait(LONG)
        scene.server.end()
        # Before it is known how the prompt has ended, and so while the file is waited for.
        threading.Timer(0.05, go_on.set).start()

    scene.server.on_view = slowly
    scene.server.on_submit = lambda: scene.tell("9", "a")
    scene.server.entry = FAILURE
    scene.server.steps = [end]
    with scene.holding():
        with pytest.raises(AttemptFailed):
            scene.attempt()
    assert go_on.is_set()
    assert scene.store.contents == {}


def test_of_a_cancelled_job_nothing_is_left(scene: Scene) -> None:
    scene.server.on_submit = lambda: scene.announce("9", "a")
    scene.server.steps = [lambda: scene.lease.control.stop(JobCancelledError("x"))]
    with scene.holding():
        with pytest.raises(JobCancelledError):
            scene.attempt()
    assert (scene.store.contents, scene.server.cancelled) == ({}, [PROMPT])


def test_what_cannot_be_removed_hides_no_failure(scene: Scene) -> None:
    scene.server.on_submit = lambda: scene.announce("9", "a")
    scene.server.entry = FAILURE
    scene.server.steps = [
        lambda: (scene.store.errors.append(StorageUnavailableError("away")), scene.server.end())
    ]
    with scene.holding():
        with pytest.raises(AttemptFailed) as caught:
            scene.attempt()
    assert type(caught.value.error) is NodeFailedError


def test_a_file_that_is_gone_fails_the_attempt_and_takes_the_others_with_it(scene: Scene) -> None:
    def gone() -> None:
        raise OutputMissingError("gone")

    scene.server.on_submit = lambda: scene.announce("9", "a")
    scene.server.entry = {**SUCCESS, "outputs": {"9": images("a", "b")}}
    scene.server.steps = [
        lambda: (setattr(scene.server, "on_view", gone), scene.server.end()),
    ]
    with scene.holding():
        with pytest.raises(AttemptFailed) as caught:
            scene.attempt()
    assert (type(caught.value.error), caught.value.node_id) == (OutputMissingError, "9")
    assert scene.store.contents == {}


def test_what_is_announced_and_in_no_history_is_removed(scene: Scene) -> None:
    scene.server.on_submit = lambda: scene.announce("9", "a", "b")
    with scene.holding():
        assert [output.key for output in scene.attempt().outputs] == [key("a")]
    assert scene.store.files == {key("a")}


def test_surplus_that_cannot_be_removed_costs_no_result(scene: Scene) -> None:
    scene.server.on_submit = lambda: scene.announce("9", "a", "b")
    scene.server.steps = [
        lambda: (scene.store.errors.append(StorageUnavailableError("away")), scene.server.end())
    ]
    with scene.holding():
        assert [output.key for output in scene.attempt().outputs] == [key("a")]
    assert scene.store.files == {key("a"), key("b", 1)}
