"""`comfyfleet submit` and `batch`: one job or many, waited for, saved, cancelled."""

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis

from sandbox.processes import ChildProcess
from sandbox.stack import Stack
from tasks import JobResult
from tests.command_line import Comfyfleet
from tests.stack import Client, bars

pytestmark = pytest.mark.integration


@pytest.fixture
def comfyfleet(stack: Stack) -> Comfyfleet:
    return Comfyfleet(stack.environment())


@pytest.fixture
def file(tmp_path: Path, seed: int) -> str:
    """A workflow with titles, as people have them."""
    workflow = bars(seed)
    workflow["1"]["_meta"] = {"title": "The Render v1.0"}
    path = tmp_path / "workflow.json"
    path.write_text(json.dumps(workflow))
    return str(path)


def executed(stack: Stack, prompt_id: str) -> dict[str, Any]:
    """The workflow that the server had."""
    from workers.comfyui import ComfyUI

    with ComfyUI(stack.comfyui_url) as comfyui:
        entry = comfyui.history(prompt_id)
    assert entry is not None
    return entry["prompt"][2]


@pytest.mark.usefixtures("running_worker")
def test_one_job_waited_for_and_saved(
    comfyfleet: Comfyfleet, stack: Stack, file: str, tmp_path: Path
) -> None:
    folder = tmp_path / "made"
    ended = comfyfleet(
        *("submit", file, "--param", "The Render v1.0.seed=random", "--param", "1.width=32"),
        *("--prefix", "cli", "--timeout", "20", "--metadata", "who=me", "--priority", "urgent"),
        *("--download", str(folder), "--json"),
    )
    assert ended.code == 0, ended
    told = result = ended.json
    assert told.keys() == {*JobResult.model_fields, "state", "files"}
    assert told["state"] == "SUCCESS"
    assert (result["job_id"], result["metadata"]) == (told["job_id"], {"who": "me"})
    assert result["outputs"][0]["key"].startswith("cli/")
    # The seed that it had is the seed that is told.
    inputs = executed(stack, result["prompt_id"])["1"]["inputs"]
    assert result["seeds"] == {"1.seed": inputs["seed"]}
    assert inputs["width"] == 32
    (saved,) = told["files"]
    assert Path(saved).parent == folder
    assert Path(saved).read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in folder.iterdir()] == [Path(saved).name]

    again = comfyfleet("submit", file, "--job-id", told["job_id"], "--download", str(folder))
    assert again.code == 0
    # The same job, and the same file: it is neither rendered nor saved twice.
    assert len(list(folder.iterdir())) == 1
    assert saved in again.stdout


def test_an_id_is_all_that_is_printed_without_waiting(
    comfyfleet: Comfyfleet, client: Client, running_worker: ChildProcess, file: str
) -> None:
    assert running_worker.returncode is None
    printed = comfyfleet("submit", file).stdout
    result = client.celery.AsyncResult(printed.strip()).get(timeout=30)
    assert result["job_id"] == printed.strip()
    told = comfyfleet("submit", file, "--job-id", "chosen", "--json")
    assert told.stdout == '{"job_id": "chosen"}\n'
    client.celery.AsyncResult("chosen").get(timeout=30)


@pytest.mark.usefixtures("running_worker")
def test_a_row_is_a_job(comfyfleet: Comfyfleet, file: str, tmp_path: Path, seed: int) -> None:
    table = tmp_path / "rows.csv"
    table.write_text(f"1.seed,The Render v1.0.width\n{seed}01,32\n{seed}02,\n{seed}03,nine\n")
    folder = tmp_path / "made"
    ended = comfyfleet(
        *("submit", file, "--params", str(table), "--batch-id", f"table-{seed}"),
        *("--json", "--download", str(folder)),
    )
    assert ended.code == 1
    last = ended.stderr.splitlines()[-1]
    assert last == (
        "comfyfleet: 1 of 3 jobs failed; row 3: InvalidWorkflowError: param 'The Render v1.0.width'"
        ": node 1 (BarsRender), input width: found 'nine', expected a whole number from 8 to 8192"
    )
    told = ended.json
    assert told["batch_id"] == f"table-{seed}"
    assert [one["job_id"] for one in told["results"]] == told["job_ids"]
    assert [one["row"] for one in told["results"]] == [1, 2, 3]
    assert [one["state"] for one in told["results"]] == ["SUCCESS", "SUCCESS", "FAILURE"]
    assert sorted(path.name for path in folder.iterdir()) == ["1", "2"]
    first = told["results"][0]
    assert Path(first["files"][0]).parent == folder / "1"
    assert first["result"]["metadata"] == {"batch": f"table-{seed}", "row": "1"}

    state = comfyfleet("batch", f"table-{seed}", "--json")
    assert (state.code, state.json["states"]) == (1, {"SUCCESS": 2, "FAILURE": 1})
    assert "2 of 3 done, 1 failed" in comfyfleet("batch", f"table-{seed}").stdout
    assert "s3://" in comfyfleet("batch", f"table-{seed}", "--wait").stdout


@pytest.mark.usefixtures("running_worker")
def test_a_sweep_and_a_workflow_from_stdin(comfyfleet: Comfyfleet, file: str, seed: int) -> None:
    ended = comfyfleet(
        *("submit", file, "--sweep", "1.steps=1,2", "--sweep", f"1.seed={seed}11,{seed}12"),
        *("--param", "1.width=16", "--wait", "--json"),
    )
    assert ended.code == 0, ended
    assert len({one["result"]["outputs"][0]["sha256"] for one in ended.json["results"]}) >= 2
    # Without a terminal it is said in lines.
    assert ended.stderr.splitlines()[-1] == "4 of 4 done"


@dataclass
class Idle:
    """A broker whose worker never comes."""

    comfyfleet: Comfyfleet
    redis: "redis.Redis[bytes]"


@pytest.fixture
def idle(stack: Stack) -> Iterator[Idle]:
    url = stack.valkey.url.replace("/0", "/7")
    own = {"CELERY_BROKER_URL": url, "CELERY_RESULT_BACKEND": url}
    with redis.Redis.from_url(url) as client:
        yield Idle(Comfyfleet({**stack.environment(), **own}), client)
        client.flushdb()


def test_who_stops_waiting_is_told_how_to_go_on(idle: Idle, file: str) -> None:
    started = idle.comfyfleet.start("submit", file, "--sweep", "1.seed=1,2", "--wait")
    started.await_stderr("0 of 2 done, 2 waiting")
    os.kill(started.pid, signal.SIGINT)
    ended = started.end()
    assert ended.code == 130
    sentence = ended.stderr.splitlines()[-1]
    assert sentence.startswith("comfyfleet: what is enqueued goes on; `comfyfleet batch ")
    batch_id = sentence.split("`comfyfleet batch ")[1].split()[0]
    told = idle.comfyfleet("batch", batch_id, "--json")
    assert (told.code, told.json["states"]) == (3, {"PENDING": 2})
    assert idle.redis.llen("comfyui") == 2


def test_a_batch_is_cancelled(
    comfyfleet: Comfyfleet, worker: ChildProcess, file: str, seed: int
) -> None:
    table = f"1.seed={','.join(f'{seed}2{n}' for n in range(20))}"
    ended = comfyfleet(
        "submit",
        file,
        "--param",
        "1.seconds=300",
        "--param",
        "1.steps=3000",
        "--sweep",
        table,
        "--json",
    )
    batch_id = ended.json["batch_id"]
    worker.wait_until(
        lambda: "PROGRESS" in comfyfleet("batch", batch_id, "--json").json["states"], 30
    )
    cancelled = comfyfleet("batch", batch_id, "--cancel")
    assert (cancelled.code, cancelled.stderr) == (0, "20 jobs are being cancelled\n")
    told = comfyfleet("batch", batch_id, "--wait", "--json")
    assert told.code == 1
    assert {one["state"] for one in told.json["results"]} == {"REVOKED"}
    assert "20 of 20 jobs failed; row 1: JobCancelledError" in told.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["{file}", "--param", "9.x=1"], 1, "param '9.x': there is no node '9'"),
        (["{file}", "--param", "1.seed"], 2, "--param: found '1.seed', expected NAME=VALUE"),
        (
            ["{file}", "--sweep", "1.seed=1,2", "--job-id", "x"],
            2,
            "--job-id: these are several jobs",
        ),
        (["{file}", "--batch-id", "x"], 2, "--batch-id: this is one job"),
        (["{file}", "--sweep", "1.seed=1,2", "--param", "9.x=1"], 1, "row 1: param '9.x'"),
        (["{file}", "--priority", "soon"], 2, "priority: found 'soon'"),
        (["{file}", "--webhook", "ftp://x"], 2, "argument 'webhook.url': found 'ftp://x'"),
        (["{file}", "--input", "a=none.png"], 2, "--input: there is no file none.png"),
        (["none.json"], 1, "none.json: No such file or directory"),
        (["{broken}"], 1, "broken.json: the workflow's file is no PNG, no WebP, and is no JSON"),
        (["{list}"], 1, "list.json: the workflow's file is JSON, but there is no workflow in it"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_enqueued_is_said(
    idle: Idle, file: str, tmp_path: Path, *, arguments: list[str], code: int, sentence: str
) -> None:
    (tmp_path / "broken.json").write_text("{{")
    (tmp_path / "list.json").write_text("[]")
    places = {"file": file, "broken": tmp_path / "broken.json", "list": tmp_path / "list.json"}
    given = [argument.format(**places) for argument in arguments]
    assert sentence in idle.comfyfleet.refused("submit", *given, code=code)
    assert idle.redis.llen("comfyui") == 0


def test_a_batch_that_nobody_knows(idle: Idle) -> None:
    assert "batch 'none' is not known" in idle.comfyfleet.refused("batch", "none", code=4)


def test_a_result_backend_that_is_away_is_named() -> None:
    away = {"CELERY_BROKER_URL": "redis://:secret@127.0.0.1:1/0"}
    sentence = Comfyfleet(away).refused("batch", "x")
    assert "the result backend did not answer (ConnectionError)" in sentence
    assert sentence.endswith("CELERY_RESULT_BACKEND is redis://:********@127.0.0.1:1/0")
