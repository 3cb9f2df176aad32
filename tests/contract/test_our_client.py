"""Our client against each server: what it sends is understood, what it gets it understands."""

import uuid
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from tasks.errors import (
    InvalidInputError,
    InvalidWorkflowError,
    NodeFailedError,
    OutputMissingError,
)
from tests.stack import Workflow, bars
from workers.comfyui import ComfyUI, Notifications
from workers.comfyui.history import failure_in, output_files
from workers.comfyui.model import FileRef, PromptState

from .comfyui import ComfyUI as Server
from .comfyui import eventually

pytestmark = pytest.mark.contract


@pytest.fixture(scope="module", params=["", "/api"], ids=["root", "api"])
def client(comfyui: Server, request: pytest.FixtureRequest):
    comfyui.need("BarsRender")
    with ComfyUI(comfyui.url + request.param, read_timeout=20) as one:
        one.clear_queue()
        yield one


@pytest.fixture
def workflow() -> Workflow:
    return bars(uuid.uuid4().int % 2**32)


def png(colour: str = "red") -> bytes:
    stream = BytesIO()
    Image.new("RGBA", (16, 16), colour).save(stream, "PNG")
    return stream.getvalue()


def finish(client: ComfyUI, prompt_id: str) -> dict:
    return eventually(lambda: client.history(prompt_id))


def test_a_prompt_from_queue_to_file(client: ComfyUI, workflow: Workflow) -> None:
    prompt_id = str(uuid.uuid4())
    assert client.state_of(prompt_id) is PromptState.UNKNOWN
    client.submit(workflow, prompt_id, "client")
    assert client.state_of(prompt_id) is not PromptState.UNKNOWN
    entry = finish(client, prompt_id)
    assert failure_in(entry, workflow) is None
    assert client.state_of(prompt_id) is PromptState.ENDED
    (output,) = output_files(entry, include_temp=False)
    with client.view(output.file) as download:
        assert Image.open(BytesIO(download.read(2**20))).size == (64, 48)
        assert download.read(1) == b""


def test_the_queue_in_its_order_and_cancelled(client: ComfyUI) -> None:
    running, first, second, urgent = (str(uuid.uuid4()) for _ in range(4))
    client.submit(bars(uuid.uuid4().int % 2**32, seconds=20, steps=200), running, "client")
    eventually(lambda: client.queue().running == (running,))
    for prompt_id, front in ((first, False), (second, False), (urgent, True)):
        client.submit(bars(uuid.uuid4().int % 2**32), prompt_id, "client", front=front)
    # The one before all others stands first, whatever the server's own order.
    assert client.queue().pending == (urgent, first, second)
    assert client.remaining() == 4
    (runs,), waiting = client.queued_prompts()
    assert (runs.prompt_id, runs.client_id) == (running, "client")
    assert runs.workflow["1"]["class_type"] == "BarsRender"
    assert [prompt.prompt_id for prompt in waiting] == [urgent, first, second]
    client.cancel(first)
    assert first not in client.queue()
    client.cancel(running)
    entry = finish(client, running)
    assert type(failure_in(entry, {})).__name__ == "PromptInterruptedError"
    finish(client, urgent)
    finish(client, second)
    assert client.history(first) is None


def test_the_queue_cleared_and_all_interrupted(client: ComfyUI) -> None:
    running, waiting = str(uuid.uuid4()), str(uuid.uuid4())
    for prompt_id in (running, waiting):
        client.submit(bars(uuid.uuid4().int % 2**32, seconds=20, steps=200), prompt_id, "client")
    eventually(lambda: client.queue().running == (running,))
    client.clear_queue()
    assert client.queue().pending == ()
    client.interrupt("another")
    assert client.queue().running == (running,)
    client.interrupt_all()
    assert failure_in(finish(client, running), {}) is not None


def test_a_workflow_in_one_call(client: ComfyUI, workflow: Workflow, tmp_path: Path) -> None:
    stages: list[str] = []
    execution = client.execute(
        workflow, tmp_path / "new", on_progress=lambda progress: stages.append(progress.stage)
    )
    (file,) = execution.files
    assert (file.node_id, file.kind, file.path.parent) == ("2", "images", tmp_path / "new")
    assert Image.open(BytesIO(file.path.read_bytes())).size == (64, 48)
    assert client.history(execution.prompt_id) is not None
    assert stages[-1] == "downloading"


def test_a_workflow_in_one_call_that_fails(
    client: ComfyUI, workflow: Workflow, tmp_path: Path
) -> None:
    workflow["1"]["inputs"]["mode"] = "error"
    with pytest.raises(NodeFailedError, match=r"node 1 \(BarsRender\) raised ValueError"):
        client.execute(workflow, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_refused_workflow(client: ComfyUI, workflow: Workflow) -> None:
    workflow["1"]["inputs"]["steps"] = 0
    with pytest.raises(InvalidWorkflowError, match=r"node 1 \(BarsRender\), input steps: Value 0"):
        client.submit(workflow, str(uuid.uuid4()), "client")


def test_a_workflow_of_which_a_part_is_refused_does_not_run(
    client: ComfyUI, workflow: Workflow
) -> None:
    prompt_id = str(uuid.uuid4())
    workflow["1"]["inputs"].update(seconds=20, steps=200)
    workflow["3"] = {"class_type": "SaveImage", "inputs": {"filename_prefix": "x"}}
    with pytest.raises(InvalidWorkflowError, match=r"node 3 \(SaveImage\), input images"):
        client.submit(workflow, prompt_id, "client")
    eventually(lambda: prompt_id not in client.queue())


def test_what_makes_the_handler_raise_is_permanent(client: ComfyUI) -> None:
    with pytest.raises(InvalidWorkflowError, match="failed while it read the workflow"):
        client.submit("x", str(uuid.uuid4()), "client")  # type: ignore[arg-type]


def test_history_listed_and_deleted(client: ComfyUI, workflow: Workflow) -> None:
    client.clear_history()
    ids = [str(uuid.uuid4()) for _ in range(3)]
    for prompt_id in ids:
        client.submit(workflow, prompt_id, "client")
        finish(client, prompt_id)
    assert list(client.histories()) == ids
    assert list(client.histories(max_items=2)) == ids[1:]
    assert list(client.histories(max_items=1, offset=1)) == ids[1:2]
    client.delete_history(ids[:1])
    assert list(client.histories()) == ids[1:]
    client.clear_history()
    assert client.histories() == {}


def test_uploads(client: ComfyUI) -> None:
    folder = f"test-{uuid.uuid4()}"
    placed = client.upload_image("a.png", png(), subfolder=folder)
    assert placed == FileRef("a.png", folder, "input")
    assert client.has(placed)
    assert client.upload_image("a.png", png(), subfolder=folder) == placed
    assert client.upload_image("a.png", png("blue"), subfolder=folder).filename == "a (1).png"
    assert client.upload_image("a.png", png("blue"), subfolder=folder, overwrite=True) == placed
    with client.view(placed) as download:
        assert download.read(2**20) == png("blue")
    mask = client.upload_mask("mask.png", png(), placed, subfolder=folder)
    assert mask == FileRef("mask.png", folder, "input")
    with pytest.raises(InvalidInputError, match="refuses the file 'a.png'"):
        client.upload_image("a.png", png(), subfolder="../../x")


@pytest.mark.parametrize("file", [FileRef("no.png"), FileRef("../x.png"), FileRef("x", "", "odd")])
def test_files_that_are_not_there(client: ComfyUI, file: FileRef) -> None:
    with pytest.raises(OutputMissingError), client.view(file):
        pass
    assert not client.has(file)


def test_what_the_server_tells_of_itself(client: ComfyUI) -> None:
    assert client.system_stats()["system"]["comfyui_version"]
    assert client.features()["max_upload_size"] > 0
    assert "checkpoints" in client.model_folders()
    assert isinstance(client.models("checkpoints"), list)
    assert isinstance(client.embeddings(), list)
    assert "KSampler" in client.object_info()
    assert list(client.object_info("KSampler")) == ["KSampler"]
    assert client.object_info("No/Such Node") == {}
    with pytest.raises(InvalidInputError, match="no model folder 'nope'"):
        client.models("nope")
    client.free()


def test_the_websocket_tells_of_the_end(client: ComfyUI, workflow: Workflow) -> None:
    notifications = Notifications(client.base_url, f"client-{uuid.uuid4()}")
    notifications.start()
    try:
        eventually(lambda: notifications.connected)
        prompt_id = str(uuid.uuid4())
        with notifications.subscribed(prompt_id) as subscription:
            client.submit(workflow, prompt_id, notifications.client_id)
            eventually(lambda: subscription.progress.finished)
            assert client.history(prompt_id) is not None
            assert subscription.progress.share(workflow) == 1.0
    finally:
        notifications.stop()
    assert not notifications.connected
