"""`comfyfleet comfy`: each verb on a server of its own, with no broker anywhere."""

import json
import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from sandbox.stack import Stack, StandIn
from tests.command_line import Comfyfleet, Ended
from tests.stack import Workflow, bars
from workers.comfyui import ComfyUI

pytestmark = pytest.mark.integration

NOBODY = "http://127.0.0.1:1"
EXPORT = Path(__file__).parents[1] / "fixtures" / "convert" / "default.ui.json"


@pytest.fixture(scope="module")
def stand_in(stack: Stack) -> StandIn:
    return stack.stand_in()


@pytest.fixture
def server(stand_in: StandIn) -> Iterator[ComfyUI]:
    with ComfyUI(stand_in.url) as one:
        yield one
        one.clear_queue()
        one.interrupt_all()
        eventually(lambda: not one.remaining())


@pytest.fixture
def comfy(stand_in: StandIn) -> Callable[..., Ended]:
    # Of all variables only the server's.
    run = Comfyfleet({"COMFYUI_URL": stand_in.url})
    return lambda *arguments: run("comfy", *arguments)


@pytest.fixture
def refused(stand_in: StandIn) -> Callable[..., str]:
    run = Comfyfleet({"COMFYUI_URL": stand_in.url})
    return lambda *arguments: run.refused("comfy", *arguments)


def eventually(holds: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 20
    while not (found := holds()):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)
    return found


def queued(server: ComfyUI, workflow: Workflow) -> str:
    prompt_id = str(uuid.uuid4())
    server.submit(workflow, prompt_id, "somebody")
    return prompt_id


def running(server: ComfyUI, seed: int) -> str:
    prompt_id = queued(server, bars(seed, seconds=300, steps=3000))
    eventually(lambda: prompt_id in server.queue().running)
    return prompt_id


def finished(server: ComfyUI, workflow: Workflow) -> str:
    prompt_id = queued(server, workflow)
    eventually(lambda: server.history(prompt_id))
    return prompt_id


def written(folder: Path, workflow: object) -> str:
    path = folder / "workflow.json"
    path.write_text(json.dumps(workflow))
    return str(path)


def test_stats(comfy: Callable[..., Ended], server: ComfyUI) -> None:
    stats = comfy("stats", "--json").json
    assert (stats["url"], stats["queue_remaining"]) == (server.base_url, 0)
    assert stats["system"]["comfyui_version"] == "0.8.0"
    table = comfy("stats").stdout
    assert "0.8.0" in table
    assert "GiB free" in table


def test_the_queue_in_its_order(comfy: Callable[..., Ended], server: ComfyUI, seed: int) -> None:
    assert comfy("queue").stdout == "Nothing runs, nothing waits.\n"
    runs, waits = running(server, seed), queued(server, bars(seed + 10**6))
    rows = comfy("queue", "--json").json
    assert [(row["state"], row["prompt_id"]) for row in rows] == [
        ("running", runs),
        ("waiting", waits),
    ]
    assert rows[1]["workflow"] == bars(seed + 10**6)
    table = comfy("queue").stdout
    assert table.index(runs) < table.index(waits)


def test_only_what_waits_is_deleted_from_the_queue(
    comfy: Callable[..., Ended], refused: Callable[..., str], server: ComfyUI, seed: int
) -> None:
    runs, waits = running(server, seed), queued(server, bars(seed + 10**6))
    assert f"comfy interrupt {runs} stops it" in refused("delete", runs)
    assert comfy("delete", waits).stdout == f"Prompt {waits} is no longer in the queue.\n"
    assert server.queue().pending == ()
    assert server.queue().running == (runs,)
    sentence = refused("delete", runs[:-1])
    assert f"{server.base_url} knows no prompt {runs[:-1]!r}" in sentence


def test_a_finished_prompt_is_forgotten(
    comfy: Callable[..., Ended], refused: Callable[..., str], server: ComfyUI, seed: int
) -> None:
    gone, kept = finished(server, bars(seed)), finished(server, bars(seed + 10**6))
    assert comfy("delete", gone, "--json").json == {"deleted": gone, "from": "history"}
    assert server.history(gone) is None
    assert server.history(kept) is not None
    near = kept[:-1] + ("0" if kept[-1] != "0" else "1")
    assert f"did you mean {kept!r}" in refused("history", near)


def test_the_queue_is_cleared_and_what_runs_goes_on(
    comfy: Callable[..., Ended], server: ComfyUI, seed: int
) -> None:
    runs = running(server, seed)
    waits = [queued(server, bars(seed + n * 10**6)) for n in (1, 2)]
    cleared = comfy("clear", "--json").json
    assert (cleared["cleared"], sorted(cleared["prompts"])) == ("queue", sorted(waits))
    assert server.queue().running == (runs,)
    assert comfy("clear", "queue").stdout == "0 waiting prompts cleared.\n"


def test_the_history_is_cleared(comfy: Callable[..., Ended], server: ComfyUI, seed: int) -> None:
    server.clear_history()
    finished(server, bars(seed))
    assert comfy("clear", "history").stdout == "1 finished prompt cleared.\n"
    assert server.histories() == {}
    assert comfy("history").stdout == "No prompt has ended, or all are forgotten.\n"


def test_the_history_with_its_files(
    comfy: Callable[..., Ended], server: ComfyUI, seed: int
) -> None:
    server.clear_history()
    good = finished(server, bars(seed))
    bad = finished(server, bars(seed, mode="error"))
    first, second = comfy("history", "--json").json
    assert (first["prompt_id"], first["succeeded"], first["error"]) == (good, True, None)
    (file,) = first["files"]
    assert file["file"].startswith("shots/demo_")
    assert second["error"] == {
        "type": "NodeFailedError",
        "message": "node 1 (BarsRender) raised ValueError: bars: deliberate node failure",
    }
    assert [one["prompt_id"] for one in comfy("history", "--json", "--max", "1").json] == [bad]
    assert file["file"] in comfy("history").stdout
    assert "deliberate node failure" in comfy("history", bad).stdout
    assert comfy("history", good, "--json").json == first


def test_what_runs_is_interrupted(
    comfy: Callable[..., Ended], refused: Callable[..., str], server: ComfyUI, seed: int
) -> None:
    assert comfy("interrupt").stdout == "Nothing runs.\n"
    runs, waits = running(server, seed), running_after(server, seed)
    assert "waits and does not run yet" in refused("interrupt", waits)
    assert "does not run on" in refused("interrupt", "another")
    assert server.queue().running == (runs,)
    assert comfy("interrupt").stdout == f"Prompt {runs} stops at its next step.\n"
    eventually(lambda: server.queue().running == (waits,))
    assert comfy("interrupt", waits, "--json").json == {"interrupted": [waits]}
    eventually(lambda: server.history(waits))


def running_after(server: ComfyUI, seed: int) -> str:
    """A prompt that will run when the one before has ended."""
    return queued(server, bars(seed + 10**6, seconds=300, steps=3000))


def test_memory_is_freed(comfy: Callable[..., Ended], server: ComfyUI, seed: int) -> None:
    finished(server, bars(seed))
    assert server.base_url in comfy("free").stdout
    again = finished(server, bars(seed))
    entry = server.history(again)
    assert entry is not None
    # What was forgotten is executed again.
    assert dict(entry["status"]["messages"])["execution_cached"]["nodes"] == []


def test_models(comfy: Callable[..., Ended], refused: Callable[..., str]) -> None:
    assert "checkpoints" in comfy("models", "--json").json
    assert "v1-5-pruned-emaonly.safetensors" in comfy("models", "checkpoints").stdout
    assert comfy("models", "loras").stdout == "There is no file in it.\n"
    assert "did you mean 'checkpoints'" in refused("models", "chekpoints")


def test_nodes(comfy: Callable[..., Ended], refused: Callable[..., str]) -> None:
    rows = {row["class"]: row for row in comfy("nodes", "--json").json}
    assert rows["BarsRender"] == {
        "class": "BarsRender",
        "display_name": "Bars (test render)",
        "category": "image",
        "pack": "bars_render",
    }
    assert "Bars (test render)" in comfy("nodes").stdout
    table = comfy("nodes", "KSampler", "--choices", "2").stdout
    assert "0.0 to 100.0, step 0.1" in table
    assert "simple, sgm_uniform, ... 7 more" in table
    assert comfy("nodes", "KSampler", "--json").json["category"] == "sampling"
    assert "did you mean 'KSampler'" in refused("nodes", "KSamler")


def test_a_file_is_viewed(
    comfy: Callable[..., Ended],
    refused: Callable[..., str],
    server: ComfyUI,
    seed: int,
    tmp_path: Path,
) -> None:
    prompt = finished(server, bars(seed))
    (output,) = comfy("history", prompt, "--json").json["files"]
    assert comfy("view", output["file"], "-o", str(tmp_path), "--json").code == 0
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG")
    assert "is there already; --force overwrites it" in refused(
        "view", output["file"], "-o", str(path)
    )
    path.write_bytes(b"")
    name = output["file"].partition("/")[2]
    forced = comfy("view", name, "--subfolder", "shots", "-o", str(path), "--force", "--json")
    assert forced.json == {"path": str(path), "size_bytes": len(content)}
    assert path.read_bytes() == content
    assert "no longer has output file" in refused("view", "none.png", "-o", str(tmp_path / "x"))
    assert "expected a file's name" in refused("view", "../none.png", "-o", str(tmp_path / "x"))
    assert "is no folder" in refused("view", "none.png", "-o", str(tmp_path / "none" / "x"))
    assert [*tmp_path.iterdir()] == [path]
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert "is no file" in refused("view", output["file"], "-o", str(pipe), "--force")
    assert pipe.is_fifo()


def test_an_input_is_viewed_as_text_on_stdout(comfy: Callable[..., Ended], server: ComfyUI) -> None:
    server.upload_image("note.txt", b"a note\n", overwrite=True)
    assert comfy("view", "note.txt", "--type", "input", "-o", "-").stdout == "a note\n"
    assert comfy("view", "note.txt [input]", "-o", "-").stdout == "a note\n"


def test_run_saves_what_it_makes(comfy: Callable[..., Ended], seed: int, tmp_path: Path) -> None:
    workflow = bars(seed)
    workflow["3"] = {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}
    workflow["4"] = {"class_type": "PreviewAny", "inputs": {"source": "a cat"}}
    out = tmp_path / "out"
    ended = comfy("run", written(tmp_path, workflow), "-o", str(out), "--json")
    assert ended.code == 0, ended
    assert ended.json["values"] == {"4": {"text": ["a cat"]}}
    (file,) = ended.json["files"]
    assert (file["node_id"], file["kind"]) == ("2", "images")
    assert Path(file["path"]).read_bytes().startswith(b"\x89PNG")
    # Once more, with previews: the same names, and nothing overwritten.
    again = comfy("run", written(tmp_path, workflow), "-o", str(out), "--include-temp")
    assert again.code == 0, again
    assert len([*out.iterdir()]) == 3
    assert again.stdout.count(str(out)) == 2
    assert "a cat" in again.stdout


def test_run_does_without_a_websocket(
    comfy: Callable[..., Ended], stand_in: StandIn, seed: int, tmp_path: Path
) -> None:
    faults = f"{stand_in.url}/sandbox/faults"
    requests.put(faults, json={"websocket": "refuse"}, timeout=5).raise_for_status()
    try:
        ended = comfy("run", written(tmp_path, bars(seed)), "-o", str(tmp_path))
    finally:
        requests.delete(faults, timeout=5).raise_for_status()
    assert (ended.code, ended.stderr) == (0, "")


def test_run_takes_what_the_ui_saves(comfy: Callable[..., Ended], tmp_path: Path) -> None:
    ended = comfy("run", str(EXPORT), "-o", str(tmp_path), "--json")
    assert ended.code == 0, ended
    assert len(ended.json["files"]) == 1


def test_run_says_how_a_prompt_failed(
    refused: Callable[..., str], seed: int, tmp_path: Path
) -> None:
    out = str(tmp_path / "out")
    failing = written(tmp_path, bars(seed, mode="error"))
    assert refused("run", failing, "-o", out) == (
        "comfyfleet: node 1 (BarsRender) raised ValueError: bars: deliberate node failure"
    )
    wrong = written(tmp_path, bars(seed, steps=0))
    assert "node 1 (BarsRender), input steps: Value 0" in refused("run", wrong, "-o", out)
    slow = written(tmp_path, bars(seed, seconds=300, steps=3000))
    assert "has executed for 0.2 s" in refused("run", slow, "-o", out, "--timeout", "0.2")
    (tmp_path / "workflow.json").write_text("{{")
    assert "is no JSON" in refused("run", str(tmp_path / "workflow.json"), "-o", out)


def test_ctrl_c_takes_the_own_prompt_back_and_no_other_one(
    stand_in: StandIn, server: ComfyUI, seed: int, tmp_path: Path
) -> None:
    other = running(server, seed)
    command = Comfyfleet({"COMFYUI_URL": stand_in.url})
    file = written(tmp_path, bars(seed + 10**6, seconds=300, steps=3000))
    waiting = command.start("comfy", "run", file, "-o", str(tmp_path))
    (own,) = eventually(lambda: server.queue().pending)
    waiting.signal(signal.SIGINT)
    ended = waiting.end()
    assert (ended.code, ended.stderr) == (130, "")
    assert server.queue().pending == ()
    assert server.queue().running == (other,)

    executing = command.start("comfy", "run", file, "-o", str(tmp_path))
    eventually(lambda: server.queue().pending)
    server.interrupt(other)
    (own,) = eventually(lambda: [one for one in server.queue().running if one != other])
    behind = queued(server, bars(seed + 2 * 10**6))
    executing.signal(signal.SIGTERM)
    assert executing.end().code == 130
    assert eventually(lambda: server.history(own))["status"]["status_str"] == "error"
    assert eventually(lambda: server.history(behind))["status"]["status_str"] == "success"


@pytest.mark.parametrize(
    "arguments",
    [
        ("stats",),
        ("queue",),
        ("history",),
        ("models",),
        ("nodes",),
        ("interrupt",),
        ("free",),
        ("clear",),
        ("delete", "p"),
        ("view", "a.png", "-o", "-"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_server_that_is_not_there_is_named(arguments: tuple[str, ...]) -> None:
    sentence = Comfyfleet({}).refused("comfy", *arguments, "--url", NOBODY)
    assert sentence.startswith(f"comfyfleet: ComfyUI at {NOBODY} refused or cut the connection")


def test_a_server_that_is_not_there_runs_nothing(tmp_path: Path) -> None:
    file = written(tmp_path, bars(1))
    sentence = Comfyfleet({"COMFYUI_URL": NOBODY}).refused(
        "comfy", "run", file, "-o", str(tmp_path)
    )
    assert NOBODY in sentence


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("gpu:8188", "expected an http:// or https:// URL"),
        ("http://me:secret@gpu", "put them into COMFYUI_HEADERS"),
    ],
)
def test_a_url_that_is_none_is_refused(url: str, expected: str) -> None:
    sentence = Comfyfleet({}).refused("comfy", "stats", "--url", url)
    assert expected in sentence
    assert "secret" not in sentence


def test_names_of_the_server_are_not_obeyed(
    comfy: Callable[..., Ended], server: ComfyUI, seed: int
) -> None:
    prompt_id = f"[red]\x1b[31m{uuid.uuid4()}"
    server.submit(bars(seed), prompt_id, "somebody")
    eventually(lambda: prompt_id in server.histories())
    table = comfy("history").stdout
    assert "[red] [31m" in table
    assert "\x1b[31m" not in table
