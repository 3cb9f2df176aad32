"""What docs/params-and-batches.md shows, done with the workflow that ComfyUI opens with."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cli.graphs import text_to_image
from sandbox.comfyui.model_files import CHECKPOINTS
from sandbox.stack import Stack
from tests.pages import ROOT, snippets

pytestmark = [pytest.mark.acceptance, pytest.mark.usefixtures("worker")]

SNIPPETS = snippets("docs/params-and-batches.md")
PROGRAMS = [one.text for one in SNIPPETS if one.kind == "python"]
COMMANDS = [
    line.removeprefix("$ ")
    for one in SNIPPETS
    if one.kind == "console"
    for line in one.text.splitlines()
]


def workflow() -> dict[str, Any]:
    graph = text_to_image(CHECKPOINTS[0], "a cat", 1)
    graph["3"]["inputs"]["steps"] = 1
    graph["6"]["_meta"] = {"title": "Positive Prompt"}
    return graph


def run(command: list[str], stack: Stack, folder: Path) -> str:
    done = subprocess.run(
        command,
        env={"PATH": os.defpath, "PYTHONPATH": str(ROOT), **stack.environment()},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_programs(stack: Stack, tmp_path: Path) -> None:
    batch, group = PROGRAMS
    given = f"workflow = {workflow()!r}\n"
    ends = "\nprint([result.metadata['row'] for result in results])"
    told = run([sys.executable, "-c", given + batch + ends], stack, tmp_path)
    assert told == "['1', '2', '3', '4', '5', '6']\n"
    waits = "\nprint(len(jobs.get(timeout=60)))"
    assert run([sys.executable, "-c", given + group + waits], stack, tmp_path) == "10\n"


def test_the_commands(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "workflow.json").write_text(json.dumps(workflow()))
    (tmp_path / "rows.csv").write_text("3.seed\n1\n2\n")
    one, many, state = (shlex.split(command) for command in COMMANDS)
    program = str(Path(sys.executable).with_name(one[0]))
    run([program, *one[1:]], stack, tmp_path)
    assert len(list((tmp_path / "made").rglob("*.png"))) == 1
    told = json.loads(run([program, *many[1:], "--json"], stack, tmp_path))
    assert [job["state"] for job in told["results"]] == ["SUCCESS"] * 6
    run(
        [program, *(told["batch_id"] if part == "ID" else part for part in state[1:])],
        stack,
        tmp_path,
    )
