"""One attempt on paper: its server, its store and its worker are stand-ins."""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Self

import pytest

from tasks.errors import ComfyUIUnavailableError, JobError
from tasks.request import JobRequest
from tasks.result import JobResult, Progress
from workers.comfyui import Notifications
from workers.comfyui.model import PromptQueue, PromptState
from workers.execution import Executor
from workers.execution.control import Control, ServerLost
from workers.execution.diagnosis import Diagnosis
from workers.execution.job import AttemptFailed, Job, Start, prompt_id
from workers.execution.keeper import Keeper, Lease, Phase
from workers.execution.manifests import Manifests
from workers.execution.prompts import Prompts
from workers.execution.removal import Removal
from workers.execution.staging import Staging
from workers.execution.stopping import Stopping
from workers.execution.storing import Storing
from workers.ledger import Claimed, Record
from workers.ledger.ledger import OURS
from workers.routing.pace import Pace
from workers.storage.store import ObjectStat, StoredObject

if TYPE_CHECKING:
    from workers.observing import Event

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
        self.on_refuse_parts: Callable[[], object] = lambda: None
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
                refuse_parts=lambda *_: self.on_refuse_parts(),
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


def unreachable(*_: Any) -> Any:
    raise ComfyUIUnavailableError("gone")
