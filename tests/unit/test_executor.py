"""One attempt on paper: who takes a prompt back, and what becomes of files that came to nothing."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO
from types import SimpleNamespace
from typing import Any, Self

import pytest

from tasks.errors import (
    ComfyUIAccessDeniedError,
    ComfyUIUnavailableError,
    InputUnavailableError,
    JobCancelledError,
    JobError,
    JobTimeoutError,
    NodeFailedError,
    OutputMissingError,
    PromptLostError,
    StorageDeniedError,
    StorageUnavailableError,
)
from tasks.request import JobRequest
from tasks.result import JobResult, Progress
from workers.comfyui import Notifications
from workers.comfyui.model import PromptQueue, PromptState
from workers.execution import Executor, removal, storing, waiting
from workers.execution import prompts as module
from workers.execution.control import (
    Control,
    HandedOn,
    LeaseLost,
    ServerHung,
    ServerLost,
    Spared,
    WorkerLeaving,
)
from workers.execution.diagnosis import Diagnosis
from workers.execution.job import AttemptFailed, Job, Start, prompt_id
from workers.execution.keeper import Keeper, Lease, Phase
from workers.execution.manifests import Manifests
from workers.execution.prompts import Prompts
from workers.execution.removal import Removal
from workers.execution.staging import Staging
from workers.execution.stopping import Stopping
from workers.execution.storing import Storing
from workers.execution.waiting import Patience
from workers.ledger import Claimed, Record
from workers.ledger.ledger import LOST, OURS
from workers.observing import Event, FileStored, NodesExecuted, StageEnded
from workers.routing.pace import Pace
from workers.storage.store import ObjectStat, StoredObject

WORKFLOW = {"9": {"class_type": "SaveImage", "inputs": {}}}
EXPORT = {"nodes": [{"id": 9, "type": "SaveImage", "widgets_values": ["x"]}], "links": []}
OBJECT_INFO = {"SaveImage": {"input": {"required": {"filename_prefix": ["STRING", {}]}}}}
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
        self.workflow: Any = None
        self.export: Any = None
        self.deleted: list[str] = []
        self.cancelled: list[str] = []

    def run(self) -> None:
        self.running = True

    def end(self) -> None:
        if self.state is PromptState.QUEUED:
            self.state = PromptState.ENDED

    def vanish(self) -> None:
        self.state = PromptState.UNKNOWN

    def submit(self, workflow: Any, prompt: str, client_id: str, *, export: Any) -> None:
        assert client_id == "mine"
        self.workflow, self.export = workflow, export
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
    def view(self, file: Any, check: Callable[[], object]) -> Iterator[BytesIO]:
        check()
        self.on_view()
        yield BytesIO(file.filename.encode())

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

    def put(self, key: str, stream: BytesIO) -> StoredObject:
        if self.errors:
            raise self.errors.pop(0)
        content = stream.read(1000)
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
        if self.errors:
            raise self.errors.pop(0)
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
        self.events: list[Event] = []
        self.phases: list[Phase] = []
        self.suspected = 0
        self.refused: list[str] = []
        self.accepted: list[None] = []
        self.takes_no_prompts = False
        self.server_lost = False
        self.on_place: Callable[[], object] = lambda: None
        self.workflow: dict[str, Any] = WORKFLOW
        self.on_object_info: Callable[[], dict[str, Any]] = lambda: OBJECT_INFO
        # Whether others have the job by now.
        self.ours = OURS
        self.keeper = Keeper(
            SimpleNamespace(renew=lambda claims: dict.fromkeys(claims, self.ours)),  # type: ignore[arg-type]
            HERE,
            pace=Pace(),
            takes_jobs=lambda: True,
            is_tired=lambda: False,
            server_answers=lambda: True,
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

    # Seconds for which the store may be away.
    patience = 0.0

    @contextmanager
    def holding(self) -> Iterator[Lease]:
        with self.keeper.holding("job", self.claim, time.monotonic()) as self.lease:
            yield self.lease

    @property
    def removal(self) -> Removal:
        return Removal(self.store, self.patience)  # type: ignore[arg-type]

    # Whether the store refuses a second manifest, and the ledger that decides if not.
    takes_conditions = True
    ledger: Any = None

    @property
    def manifests(self) -> Manifests:
        return Manifests(
            self.store,  # type: ignore[arg-type]
            self.ledger,
            self.keeper,
            takes_conditions=lambda: self.takes_conditions,
        )

    @property
    def executor(self) -> Executor:
        def place(workflow: Any, *_: object) -> Any:
            self.on_place()
            return workflow

        diagnosis = Diagnosis(self.server, self.notifications, self.suspect)  # type: ignore[arg-type]
        return Executor(
            staging=Staging(
                inputs=SimpleNamespace(place=place),  # type: ignore[arg-type]
                refuse_parts=lambda *_: None,
                object_info=self.on_object_info,
                workflow_max_bytes=10**6,
            ),
            prompts=Prompts(
                comfyui=self.server,  # type: ignore[arg-type]
                notifications=self.notifications,
                listen_as=None,  # type: ignore[arg-type]
                server_at={THERE: self.there}.__getitem__,  # type: ignore[arg-type]
                breaker=SimpleNamespace(  # type: ignore[arg-type]
                    suspect=self.suspect,
                    refuse=self.refuse,
                    accept=lambda: self.accepted.append(None),
                ),
                keeper=self.keeper,
                stopping=Stopping(self.server, self.keeper, lambda _: None),  # type: ignore[arg-type]
                diagnosis=diagnosis,
                stall_seconds=60.0,
                confirm_server=self.confirm_server,
                observe=self.events.append,
            ),
            storing=Storing(
                store=self.store,  # type: ignore[arg-type]
                uploaders=self.uploaders,
                removal=self.removal,
                manifests=self.manifests,
                keeper=self.keeper,
                s3_patience_seconds=self.patience,
                observe=self.events.append,
            ),
            diagnosis=diagnosis,
            keeper=self.keeper,
            store=self.store,  # type: ignore[arg-type]
            manifests=self.manifests,
            removal=self.removal,
            worker="w",
            prefix="",
            s3_patience_seconds=self.patience,
            observe=self.events.append,
        )

    def confirm_server(self, _control: Control) -> None:
        if self.server_lost:
            raise ServerLost("x")

    def refuse(self, job_id: str) -> bool:
        self.refused.append(job_id)
        return self.takes_no_prompts

    def suspect(self) -> None:
        self.suspected += 1

    def job(self, start: Start = Start.SUBMIT, **known: Any) -> Job:
        return Job(
            id="job",
            request=JobRequest(
                workflow=known.pop("workflow", self.workflow),
                params=known.pop("params", {}),
                timeout_seconds=known.pop("timeout", None),
            ),
            instance=THERE if start is Start.COLLECT else HERE,
            client_id="mine",
            folder="job",
            start=start,
            **known,
        )

    def attempt(self, start: Start = Start.SUBMIT, **known: Any) -> JobResult:
        def report(progress: Progress) -> None:
            self.told.append(progress)
            self.phases.append(self.lease.phase)

        return self.executor.run(self.job(start, **known), self.lease, report)

    def failed(self) -> AttemptFailed:
        with self.holding(), pytest.raises(AttemptFailed) as caught:
            self.attempt()
        return caught.value


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
    assert (scene.server.workflow, scene.server.export) == (WORKFLOW, None)
    assert [output.key for output in result.outputs] == [key("a")]
    assert scene.store.files == {key("a")}
    stages = ["staging", "queued", "executing", "uploading", "uploading"]
    assert [one.stage for one in scene.told] == stages
    observed = [
        (type(one), getattr(one, "stage", getattr(one, "key", None))) for one in scene.events
    ]
    assert observed == [
        (StageEnded, "staging"),
        (NodesExecuted, None),
        (StageEnded, "executing"),
        (FileStored, key("a")),
        (StageEnded, "uploading"),
        (StageEnded, "committing"),
    ]
    assert scene.phases == [Phase.WAITING, Phase.WAITING, Phase.EXECUTING, *[Phase.STORING] * 2]


def test_the_nodes_that_were_heard_of_are_told_also_of_a_prompt_that_fails(scene: Scene) -> None:
    def hear() -> None:
        for node in ("9", "9.1"):
            data = {"prompt_id": PROMPT, "node": node}
            message = json.dumps({"type": "executing", "data": data})
            scene.notifications._dispatch(message.encode())
        data = {"prompt_id": PROMPT, "node_id": "9.1"}
        failed = json.dumps({"type": "execution_error", "data": data})
        scene.notifications._dispatch(failed.encode())
        scene.server.vanish()

    scene.server.steps = [hear]
    before = time.time()
    assert isinstance(scene.failed().error, PromptLostError)
    (told,) = (event for event in scene.events if isinstance(event, NodesExecuted))
    # The second one was made by another one, and stands in no workflow.
    classes = [(node.node_id, node.class_type) for node in told.nodes]
    assert classes == [("9", "SaveImage"), ("9.1", None)]
    assert all(before - 1 <= node.began_at <= time.time() + 1 for node in told.nodes)


@pytest.mark.parametrize(
    ("outputs", "values"),
    [
        ({}, [0.9]),
        ({"9": {"text": ["a"]}}, [0.9]),
        ({"9": images("a")}, [0.9, 1.0]),
        ({"9": images("a", "b"), "10": images("c", "d")}, [0.9, 0.925, 0.95, 0.975, 1.0]),
    ],
    ids=repr,
)
def test_each_file_that_is_stored_is_progress(
    scene: Scene, outputs: dict[str, Any], values: list[float]
) -> None:
    scene.server.entry = {**SUCCESS, "outputs": outputs}
    with scene.holding():
        scene.attempt()
    # Also where there is none it is told that the GPU has done with it.
    assert [one.value for one in scene.told if one.stage == "uploading"] == values


def test_what_was_executed_elsewhere_needs_no_gpu(scene: Scene) -> None:
    scene.there.state = PromptState.ENDED
    with scene.holding() as lease:
        scene.attempt(Start.COLLECT)
        # Nor may any other server have it.
        assert lease.bound_until == float("inf")
        assert scene.keeper.spare is None
    # From the first.
    assert set(scene.phases) == {Phase.STORING}


RENDER = {"1": {"class_type": "Render", "inputs": {"seed": 1, "model": "a"}}}
OF_RENDER = {
    "Render": {
        "input": {"required": {"seed": ["INT", {"min": 0, "max": 9**9}], "model": [["a"], {}]}}
    }
}


@pytest.mark.parametrize("start", [Start.SUBMIT, Start.ADOPT])
def test_a_seed_is_told_and_the_same_in_every_attempt(scene: Scene, start: Start) -> None:
    scene.on_object_info = lambda: OF_RENDER
    scene.server.state = PromptState.ENDED
    with scene.holding():
        seeds = [
            scene.attempt(start, workflow=RENDER, params={"Render.seed": "random"}).seeds
            for start in (start, Start.SUBMIT)
        ]
    assert seeds[0] == seeds[1]
    assert list(seeds[0]) == ["1.seed"]
    assert 0 <= seeds[0]["1.seed"] <= 9**9


def test_the_seed_of_what_was_executed_elsewhere_is_told_by_that_server(scene: Scene) -> None:
    scene.there.state = PromptState.ENDED
    executed = {"1": {"class_type": "Render", "inputs": {"seed": 77, "model": "b"}}}
    scene.there.entry = {**SUCCESS, "outputs": {}, "prompt": [0, PROMPT, executed, {}, ["1"]]}
    # Of what that server has this one need not have anything.
    params = {"1.seed": "random", "1.model": "b"}
    with scene.holding():
        result = scene.attempt(Start.COLLECT, workflow=RENDER, params=params)
    assert result.seeds == {"1.seed": 77}


def test_params_are_checked_before_a_gpu_is_used(scene: Scene) -> None:
    scene.on_object_info = lambda: OF_RENDER
    with scene.holding(), pytest.raises(AttemptFailed) as caught:
        scene.attempt(workflow=RENDER, params={"1.model": "b"})
    assert "node 1 (Render), input model: found 'b'" in caught.value.error.message
    assert scene.server.submitted == []


def test_what_was_executed_elsewhere_is_not_given_away(scene: Scene) -> None:
    # It was asked for before anybody knew that.
    scene.there.state = PromptState.QUEUED
    with scene.holding() as lease:
        lease.control.want_elsewhere()
        assert scene.attempt(Start.COLLECT).outputs
    assert scene.server.deleted == []


# What a new prompt waits for


def test_a_job_whose_lease_has_ended_while_its_inputs_were_placed_is_confirmed_first(
    scene: Scene,
) -> None:
    scene.on_place = lambda: setattr(scene.lease, "valid_until", float("-inf"))
    with scene.holding() as lease:
        assert [output.key for output in scene.attempt().outputs] == [key("a")]
        assert lease.valid_until > time.monotonic()


def test_a_job_that_others_have_by_then_is_not_queued(scene: Scene) -> None:
    scene.on_place = lambda: setattr(scene.lease, "valid_until", float("-inf"))
    scene.ours = LOST
    with scene.holding():
        with pytest.raises(LeaseLost):
            scene.attempt()
    assert scene.server.submitted == []


def test_a_job_that_has_a_reason_to_end_by_then_is_not_queued(scene: Scene) -> None:
    scene.on_place = lambda: scene.lease.control.stop(WorkerLeaving("x"))
    with scene.holding():
        with pytest.raises(WorkerLeaving):
            scene.attempt()
    assert scene.server.submitted == []


def test_nothing_is_queued_on_a_server_that_another_worker_drives(scene: Scene) -> None:
    scene.server_lost = True
    with scene.holding():
        with pytest.raises(ServerLost):
            scene.attempt()
    assert scene.server.submitted == []
    # What runs there is the other one's to stop.
    assert scene.server.cancelled == []


# How long it is waited for


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> list[Patience]:
    """What is had with a prompt, which never ends in time."""
    had: list[Patience] = []

    def await_entry(*_: Any, patience: Patience, **__: Any) -> None:
        had.append(patience)
        raise JobTimeoutError("x")

    monkeypatch.setattr(module, "await_entry", await_entry)
    return had


def test_the_time_of_a_new_prompt_counts_from_its_execution(
    scene: Scene, patience: list[Patience]
) -> None:
    # Neither placing inputs nor those before it in the queue take any of it.
    with scene.holding(), pytest.raises(AttemptFailed):
        scene.attempt(timeout=7.0)
    assert patience == [Patience(7.0, None, 60.0)]


@pytest.mark.parametrize("start", [Start.ADOPT, Start.COLLECT])
def test_that_of_one_from_before_counts_from_when_it_was_submitted(
    scene: Scene, patience: list[Patience], start: Start
) -> None:
    before = time.monotonic()
    with scene.holding(), pytest.raises(AttemptFailed):
        scene.attempt(start, timeout=7.0, age=5.0)
    (had,) = patience
    assert had.seconds == 7.0
    assert had.since is not None
    assert before - 5.0 <= had.since <= time.monotonic() - 5.0


def test_a_prompt_that_waits_behind_one_that_hangs_is_handed_on(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def await_entry(*_: Any, **__: Any) -> None:
        raise ServerHung("x")

    monkeypatch.setattr(module, "await_entry", await_entry)
    with scene.holding() as lease:
        # No failure of its own.
        with pytest.raises(ServerHung):
            scene.attempt()
        assert lease.prompt_stopped
    assert scene.server.cancelled == [PROMPT]


# Exports of the UI


def test_an_export_is_sent_in_api_format_with_its_params_set(scene: Scene) -> None:
    scene.workflow = EXPORT
    with scene.holding():
        result = scene.attempt(params={"9.filename_prefix": "y"})
    sent = {"class_type": "SaveImage", "inputs": {"filename_prefix": "y"}}
    assert scene.server.workflow == {"9": {**sent, "_meta": {"title": "SaveImage"}}}
    assert scene.server.export == EXPORT
    assert [output.key for output in result.outputs] == [key("a")]


def test_what_fails_is_named_as_it_was_sent(scene: Scene) -> None:
    scene.workflow, scene.server.entry = EXPORT, FAILURE
    assert scene.failed().error.message.startswith("node 9 (SaveImage) raised ValueError")


@pytest.mark.parametrize("start", [Start.ADOPT, Start.COLLECT])
def test_what_was_rendered_is_stored_though_the_server_does_not_say_what_it_has(
    scene: Scene, start: Start
) -> None:
    def fail() -> Any:
        raise ComfyUIUnavailableError("x")

    scene.workflow, scene.on_object_info = EXPORT, fail
    scene.server.state = scene.there.state = PromptState.ENDED
    with scene.holding():
        result = scene.attempt(start, params={"9.filename_prefix": "y"})
    assert [output.key for output in result.outputs] == [key("a")]


def test_a_server_that_does_not_say_what_it_has_is_tried_again(scene: Scene) -> None:
    def fail() -> Any:
        raise ComfyUIUnavailableError("x")

    scene.workflow, scene.on_object_info = EXPORT, fail
    failed = scene.failed()
    assert isinstance(failed.error, ComfyUIUnavailableError)
    # It has cost the job nothing, and the server is looked at.
    assert (failed.executing, failed.rendered, scene.suspected) == (False, False, 1)


# Wanted elsewhere


def test_a_job_that_is_wanted_elsewhere_is_not_queued(scene: Scene) -> None:
    with scene.holding() as lease:
        scene.keeper.hand_over(lease)
        with pytest.raises(Spared):
            scene.attempt()
        # There is no prompt that anybody could go on with.
        assert lease.prompt_stopped
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


def test_a_prompt_that_could_not_be_taken_out_is_tried_again(scene: Scene) -> None:
    server = scene.server
    server.steps = [lambda: scene.keeper.hand_over(scene.lease), lambda: None]
    errors = iter([ComfyUIUnavailableError("slow")] * 3)

    def delete() -> None:
        if error := next(errors, None):
            raise error
        server.vanish()

    server.on_delete = delete
    with scene.holding() as lease:
        with pytest.raises(Spared):
            scene.attempt()
        assert lease.prompt_stopped
    assert server.deleted == [PROMPT] * 4


def test_a_prompt_that_begins_meanwhile_is_not_tried_again(scene: Scene) -> None:
    server = scene.server
    server.steps = [lambda: scene.keeper.hand_over(scene.lease), lambda: None, server.end]

    def delete() -> None:
        server.run()
        raise ComfyUIUnavailableError("slow")

    server.on_delete = delete
    with scene.holding():
        assert [output.key for output in scene.attempt().outputs] == [key("a")]
    assert server.deleted == [PROMPT]


def test_a_prompt_that_was_taken_out_though_the_answer_got_lost_is_spared(scene: Scene) -> None:
    server = scene.server
    server.steps = [lambda: scene.keeper.hand_over(scene.lease)]

    def delete() -> None:
        server.vanish()
        raise ComfyUIUnavailableError("the answer was lost")

    server.on_delete = delete
    with scene.holding() as lease:
        with pytest.raises(Spared):
            scene.attempt()
        assert lease.prompt_stopped
    assert server.deleted == [PROMPT]


@pytest.mark.parametrize("wanted", [False, True])
def test_a_prompt_that_is_lost_while_it_executes_is_lost(scene: Scene, wanted: bool) -> None:
    scene.server.running = True
    scene.server.steps = [
        lambda: scene.keeper.hand_over(scene.lease) if wanted else None,
        scene.server.vanish,
    ]
    failed = scene.failed()
    assert (type(failed.error), failed.executing) == (PromptLostError, True)
    assert scene.suspected > 0


def test_a_prompt_that_is_lost_while_nobody_wants_it_elsewhere_is_lost(scene: Scene) -> None:
    scene.server.steps = [scene.server.vanish]
    assert type(scene.failed().error) is PromptLostError


# What is known of an attempt that failed


def test_what_rendered_and_cannot_be_fetched_has_rendered(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.execution.patience.OUTAGE_PATIENCE", 0.0)

    def gone() -> None:
        raise ComfyUIUnavailableError("gone")

    scene.server.on_view = gone
    scene.server.steps = [scene.server.run, scene.server.end]
    failed = scene.failed()
    assert type(failed.error) is ComfyUIUnavailableError
    # It cannot have died of what it had ended.
    assert (failed.rendered, failed.executing) == (True, False)


def unreachable(*_: Any) -> Any:
    raise ComfyUIUnavailableError("gone")


@pytest.mark.parametrize("all_of_them", [False, True])
def test_a_job_that_a_server_refuses_has_only_waited_if_it_refuses_all(
    scene: Scene, all_of_them: bool
) -> None:
    def refuse() -> None:
        scene.server.vanish()
        raise ComfyUIUnavailableError("502")

    scene.server.on_submit = refuse
    scene.takes_no_prompts = all_of_them
    failed = scene.failed()
    assert (failed.waited, failed.executing) == (all_of_them, False)
    assert (scene.refused, scene.accepted) == (["job"], [])


def test_a_prompt_that_was_taken_is_noted_though_its_answer_was_lost(scene: Scene) -> None:
    def lose() -> None:
        raise ComfyUIUnavailableError("cut")

    scene.server.on_submit = lose
    with scene.holding():
        assert scene.attempt().outputs
    assert (scene.refused, scene.accepted) == ([], [None])


def test_a_prompt_whose_files_the_server_does_not_show_has_not_only_waited(scene: Scene) -> None:
    def deny() -> None:
        raise ComfyUIAccessDeniedError("403")

    scene.server.state = PromptState.ENDED
    scene.server.on_view = deny
    with scene.holding(), pytest.raises(AttemptFailed) as caught:
        scene.attempt(Start.ADOPT)
    assert (caught.value.rendered, caught.value.waited) == (True, False)


def test_a_job_for_which_no_server_was_there_has_waited(scene: Scene) -> None:
    scene.server.on_submit = unreachable
    scene.server.state_of = scene.server.queue = unreachable  # type: ignore[method-assign]
    failed = scene.failed()
    assert (failed.waited, failed.executing) == (True, False)


def test_so_has_one_whose_inputs_could_not_be_placed(scene: Scene) -> None:
    scene.on_place = unreachable
    assert not scene.failed().waited
    scene.server.queue = unreachable  # type: ignore[method-assign]
    assert scene.failed().waited


def test_the_server_has_no_part_in_an_input_that_is_away(scene: Scene) -> None:
    def miss() -> None:
        raise InputUnavailableError("503")

    scene.on_place = miss
    scene.server.queue = unreachable  # type: ignore[method-assign]
    failed = scene.failed()
    assert type(failed.error) is InputUnavailableError
    assert (failed.waited, failed.executing, scene.suspected) == (False, False, 0)


def test_a_server_that_vanishes_with_the_submission_may_have_died_of_it(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The websocket's end is heard a moment after the request's.
    waited: list[float] = []
    monkeypatch.setattr(Notifications, "connected", property(lambda _: not waited))
    monkeypatch.setattr(Notifications, "held_since", lambda *_: not waited)
    monkeypatch.setattr(Notifications, "wait_cut", lambda _, seconds: waited.append(seconds))
    scene.server.on_submit = unreachable
    scene.server.state_of = scene.server.queue = unreachable  # type: ignore[method-assign]
    failed = scene.failed()
    assert (failed.waited, failed.executing) == (False, True)


def test_a_job_that_waited_in_the_queue_of_a_server_that_went_away_has_waited(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "OUTAGE_PATIENCE", -1.0)
    monkeypatch.setattr(Notifications, "held_since", lambda *_: True)

    def vanish() -> None:
        scene.server.history = unreachable  # type: ignore[method-assign]

    scene.server.steps = [vanish]
    failed = scene.failed()
    assert type(failed.error) is ComfyUIUnavailableError
    assert (failed.waited, failed.executing) == (True, False)


def test_nobody_asks_whether_a_server_is_there_that_has_said_no(scene: Scene) -> None:
    scene.server.entry = FAILURE
    assert not scene.failed().waited


def test_what_failed_has_not_rendered(scene: Scene) -> None:
    scene.server.entry = {**FAILURE, "outputs": {"9": images("a")}}
    failed = scene.failed()
    assert (failed.rendered, failed.nodes) == (False, ())


def test_all_nodes_with_files_are_known_when_one_file_is_gone(scene: Scene) -> None:
    def gone() -> None:
        raise OutputMissingError("gone")

    scene.server.on_view = gone
    outputs = {"9": images("a", "b"), "12": {"text": ["a"]}, "10": images("c")}
    scene.server.entry = {**SUCCESS, "outputs": outputs}
    failed = scene.failed()
    assert type(failed.error) is OutputMissingError
    assert failed.rendered
    assert sorted(failed.nodes) == ["10", "9"]


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


def test_who_loses_the_job_while_it_removes_files_removes_no_more(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removal, "_AT_ONCE", 1)
    deleted = scene.store.delete

    def delete(keys: list[str]) -> None:
        deleted(keys)
        # By now somebody else may have stored the others anew, and committed.
        scene.lease.valid_until = float("-inf")

    scene.store.delete = delete  # type: ignore[method-assign]
    scene.server.on_submit = lambda: scene.announce("9", "a", "b", "c")
    scene.server.entry = FAILURE
    with scene.holding():
        with pytest.raises(AttemptFailed):
            scene.attempt()
    assert len(scene.store.contents) == 2


@pytest.mark.parametrize(("reason", "stays"), [(LeaseLost("x"), True), (WorkerLeaving("x"), False)])
def test_what_is_stored_of_a_prompt_that_goes_on_stays(
    scene: Scene, reason: HandedOn, stays: bool
) -> None:
    scene.server.on_submit = lambda: scene.announce("9", "a")
    scene.server.steps = [lambda: scene.lease.control.stop(reason)]
    with scene.holding():
        with pytest.raises(HandedOn):
            scene.attempt()
    # Whoever goes on with the prompt stores the same. One that is stopped nobody goes on with.
    assert (scene.store.contents.keys() == {key("a")}) == stays
    assert stays or not scene.store.contents


def test_who_is_handed_on_waits_for_no_file(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()
    monkeypatch.setattr(storing, "_ABANDON_SECONDS", 3600.0)

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
    assert (type(caught.value.error), caught.value.nodes) == (OutputMissingError, ("9",))
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


def test_surplus_that_is_being_stored_is_waited_for_and_removed(scene: Scene) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slowly() -> None:
        begun.set()
        assert go_on.wait(LONG)

    def end() -> None:
        assert begun.wait(LONG)
        scene.server.entry = {**SUCCESS, "outputs": {}}
        scene.server.end()
        threading.Timer(0.05, go_on.set).start()

    scene.server.on_view = slowly
    scene.server.on_submit = lambda: scene.tell("9", "a")
    scene.server.steps = [end]
    with scene.holding():
        assert scene.attempt().outputs == []
    assert go_on.is_set()
    assert scene.store.files == set()


# Files of a job that was cancelled


def is_removed() -> None:
    """Wait for what goes on in the background."""
    for thread in threading.enumerate():
        if thread.name == "removal":
            thread.join(LONG)
            assert not thread.is_alive()


def test_what_a_cancelled_job_has_stored_is_removed_when_the_store_is_back(scene: Scene) -> None:
    scene.patience = 5.0
    scene.store.contents = {key("a"): b"1"}
    scene.store.errors = [StorageUnavailableError("away")] * 2
    scene.removal.remove(scene.job())
    # Nobody waits for it.
    assert scene.store.contents.keys() == {key("a")}
    is_removed()
    assert scene.store.contents == {}


def test_what_others_commit_until_the_store_is_back_stays(scene: Scene) -> None:
    scene.patience = 5.0
    scene.store.contents = {key("a"): b"1"}
    scene.store.errors = [StorageUnavailableError("away")] * 2
    scene.removal.remove(scene.job())
    scene.store.contents["job/manifest.json"] = b"{}"
    is_removed()
    assert scene.store.files == {key("a")}


def test_a_store_that_denies_it_is_not_asked_again(scene: Scene) -> None:
    scene.store.contents = {key("a"): b"1"}
    scene.store.errors = [StorageDeniedError("no")]
    scene.removal.remove(scene.job())
    is_removed()
    assert scene.store.contents.keys() == {key("a")}
