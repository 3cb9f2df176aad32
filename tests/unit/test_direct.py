"""A workflow without a queue, on paper: what is taken back, what is raised, what is saved."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.errors import (
    ComfyUIUnavailableError,
    InvalidWorkflowError,
    JobError,
    JobTimeoutError,
    NodeFailedError,
    OutputMissingError,
    PromptInterruptedError,
    PromptLostError,
)
from tasks.result import Progress
from workers.comfyui.model import FileRef, PromptQueue, PromptState
from workers.comfyui.notifications import Subscription
from workers.direct import spine

WORKFLOW = {"9": {"class_type": "SaveImage", "inputs": {}}}
SUCCESS = {"status": {"status_str": "success"}}


def failed(kind: str, **data: Any) -> dict[str, Any]:
    return {"status": {"status_str": "error", "messages": [[kind, data]]}}


class Server:
    """Has one prompt, which runs when it is looked at, and ends at the second look."""

    base_url = "http://gpu"
    headers: Mapping[str, str] = {}

    def __init__(self) -> None:
        self.state = PromptState.UNKNOWN
        self.entry: dict[str, Any] = SUCCESS
        self.on_submit: Callable[[], object] = lambda: None
        self.looks = 0
        self.on_look: Callable[[], object] = self.go_on
        self.hint: Callable[[], object] = lambda: None
        self.submitted: list[tuple[Any, str, str]] = []
        self.exports: list[Any] = []
        self.cancelled: list[str] = []
        self.classes_asked = 0

    def go_on(self) -> None:
        self.looks += 1
        if self.looks == 2:
            self.state = PromptState.ENDED

    def vanish(self) -> None:
        self.state = PromptState.UNKNOWN

    def remaining(self) -> int:
        return 0

    def object_info(self) -> dict[str, Any]:
        self.classes_asked += 1
        return {"SaveImage": {"input": {"required": {}}, "output_node": True}}

    def submit(self, workflow: Any, prompt_id: str, client_id: str, *, export: Any) -> None:
        self.submitted.append((workflow, prompt_id, client_id))
        self.exports.append(export)
        self.state = PromptState.QUEUED
        self.hint()
        self.on_submit()

    def state_of(self, _: str) -> PromptState:
        return self.state

    def history(self, _: str) -> dict[str, Any] | None:
        return self.entry if self.state is PromptState.ENDED else None

    def queue(self) -> PromptQueue:
        running = (self.submitted[-1][1],) if self.state is PromptState.QUEUED else ()
        self.on_look()
        # The waiter is to look again at once.
        self.hint()
        return PromptQueue(running, ())

    def try_cancel(self, prompt_id: str) -> bool:
        self.cancelled.append(prompt_id)
        return True

    @contextmanager
    def view(self, file: FileRef) -> Iterator[Any]:
        if file.filename == "gone":
            raise OutputMissingError("gone")
        yield SimpleNamespace(read=BytesIO(f"{file.subfolder}/{file.filename}".encode()).read)


class Ear:
    """Hears nothing, and is connected at once."""

    connected = True
    heard_at = 0.0

    def __init__(self, base_url: str, client_id: str, *, headers: Mapping[str, str]) -> None:
        assert (base_url, headers) == ("http://gpu", {})
        self.client_id = client_id
        self.state = "new"

    def held_since(self, _: float) -> bool:
        return False

    @contextmanager
    def subscribed(self, _: str) -> Iterator[Subscription]:
        self.subscription = Subscription(lambda *_: None, adopted=False)
        SERVERS[-1].hint = self.subscription.look
        yield self.subscription

    def start(self) -> None:
        self.state = "started"
        self.subscription.look()

    def stop(self) -> None:
        self.state = "stopped"


SERVERS: list[Server] = []
EARS: list[Ear] = []


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    def ear(*args: Any, **options: Any) -> Ear:
        EARS.append(Ear(*args, **options))
        return EARS[-1]

    monkeypatch.setattr(spine, "Notifications", ear)
    SERVERS.append(Server())
    return SERVERS[-1]


def execute(server: Server, folder: Path, workflow: Any = WORKFLOW, **options: Any) -> Any:
    comfyui: Any = server
    return spine.execute(comfyui, workflow, folder, **options)


def test_what_nodes_made_is_saved_and_what_they_showed_is_told(
    server: Server, tmp_path: Path
) -> None:
    same = [{"filename": "a.png", "subfolder": "x"}, {"filename": "b.png", "type": "temp"}]
    server.entry = {
        **SUCCESS,
        "outputs": {
            "9": {"images": same},
            "10": {"gifs": [{"filename": "../a.png", "subfolder": "y"}], "text": ["a cat"]},
        },
    }
    told: list[Progress] = []
    folder = tmp_path / "new" / "folder"
    execution = execute(server, folder, on_progress=told.append)
    ((_, prompt_id, client_id),) = server.submitted
    assert execution.prompt_id == prompt_id
    assert client_id == EARS[-1].client_id
    assert [(one.node_id, one.kind, one.path.name) for one in execution.files] == [
        ("9", "images", "a.png"),
        ("10", "gifs", "a-2.png"),
    ]
    assert [one.path.read_text() for one in execution.files] == ["x/a.png", "y/../a.png"]
    assert {path.parent for path in tmp_path.rglob("*.png")} == {folder}
    assert execution.values == {"10": {"text": ["a cat"]}}
    assert list(dict.fromkeys(one.stage for one in told)) == ["queued", "executing", "downloading"]
    assert [one.value for one in told] == sorted(one.value for one in told)
    assert (server.cancelled, EARS[-1].state) == ([], "stopped")


def test_previews_are_saved_on_request(server: Server, tmp_path: Path) -> None:
    preview = {"filename": "b.png", "type": "temp"}
    server.entry = {**SUCCESS, "outputs": {"9": {"images": [preview]}}}
    assert execute(server, tmp_path).files == ()
    server.looks = 0
    (file,) = execute(server, tmp_path, include_temp=True).files
    assert file.path.name == "b.png"


def test_an_export_is_converted_by_the_servers_own_nodes(server: Server, tmp_path: Path) -> None:
    node = {"id": 9, "type": "SaveImage", "inputs": [], "outputs": [], "widgets_values": []}
    export = {"nodes": [node], "links": [], "version": 0.4}
    execute(server, tmp_path, export)
    ((workflow, _, _),) = server.submitted
    assert workflow["9"]["class_type"] == "SaveImage"
    assert server.classes_asked == 1
    # For images to have it embedded, as with the UI.
    assert server.exports == [export]


def test_what_is_in_api_format_is_sent_as_it_is(server: Server, tmp_path: Path) -> None:
    execute(server, tmp_path)
    ((workflow, _, _),) = server.submitted
    assert (workflow, server.exports, server.classes_asked) == (WORKFLOW, [None], 0)


@pytest.mark.parametrize(
    ("entry", "error"),
    [
        (failed("execution_error", node_id="9", exception_type="ValueError"), NodeFailedError),
        (failed("execution_interrupted"), PromptInterruptedError),
    ],
)
def test_how_a_prompt_ended_is_raised(
    server: Server, tmp_path: Path, entry: dict[str, Any], error: type[JobError]
) -> None:
    server.entry = entry
    with pytest.raises(error):
        execute(server, tmp_path)
    # It has ended: there is nothing to take back.
    assert server.cancelled == []


def test_a_file_that_is_gone_is_an_error_and_others_stay(server: Server, tmp_path: Path) -> None:
    images = [{"filename": "a"}, {"filename": "gone"}]
    server.entry = {**SUCCESS, "outputs": {"9": {"images": images}}}
    with pytest.raises(OutputMissingError):
        execute(server, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("reason", [KeyboardInterrupt(), ValueError("of the caller")], ids=repr)
def test_who_gives_up_takes_the_prompt_back_and_no_other_one(
    server: Server, tmp_path: Path, reason: BaseException
) -> None:
    def give_up(_: Progress) -> None:
        raise reason

    server.on_look = lambda: None
    with pytest.raises(type(reason)):
        execute(server, tmp_path, on_progress=give_up)
    assert server.cancelled == [server.submitted[0][1]]
    assert EARS[-1].state == "stopped"


def test_an_interrupt_while_it_is_submitted_takes_it_back(server: Server, tmp_path: Path) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    server.on_submit = interrupt
    with pytest.raises(KeyboardInterrupt):
        execute(server, tmp_path)
    assert server.cancelled == [server.submitted[0][1]]


def test_a_timeout_stops_the_prompt_and_says_so(server: Server, tmp_path: Path) -> None:
    server.on_look = lambda: None
    with pytest.raises(JobTimeoutError, match=r"has executed for 0\.001 s, its timeout"):
        execute(server, tmp_path, timeout=0.001)
    assert server.cancelled == [server.submitted[0][1]]


def test_a_prompt_that_the_server_forgot_is_lost(server: Server, tmp_path: Path) -> None:
    server.on_submit, server.on_look = server.vanish, lambda: None
    with pytest.raises(PromptLostError):
        execute(server, tmp_path)


def test_a_refused_workflow_is_nothing_to_take_back(server: Server, tmp_path: Path) -> None:
    def refuse() -> None:
        raise InvalidWorkflowError("node 9")

    server.on_submit = refuse
    with pytest.raises(InvalidWorkflowError):
        execute(server, tmp_path)
    assert server.cancelled == []


def test_what_is_no_workflow_is_not_sent(server: Server, tmp_path: Path) -> None:
    with pytest.raises(InvalidWorkflowError, match="has no class_type"):
        execute(server, tmp_path, {"1": {}})
    assert server.submitted == []


@pytest.mark.parametrize("taken", [True, False])
def test_a_lost_answer_is_no_lost_prompt(server: Server, tmp_path: Path, taken: bool) -> None:
    def lose() -> None:
        if not taken:
            server.vanish()
        raise ComfyUIUnavailableError("cut")

    server.on_submit = lose
    if taken:
        assert execute(server, tmp_path).prompt_id == server.submitted[0][1]
    else:
        with pytest.raises(ComfyUIUnavailableError, match="cut"):
            execute(server, tmp_path)
    assert len(server.submitted) == 1
