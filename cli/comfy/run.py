"""`comfyfleet comfy run`: a workflow from its file to its pictures."""

import json
import logging
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from cli.comfy.client import Url, open_server
from cli.output import AsJson, bar, cell, print_json, print_table
from cli.workflow_files import WorkflowFile, workflow_in
from tasks.result import Progress
from workers.comfyui import Execution


def run(
    file: WorkflowFile,
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for what it makes.")
    ],
    timeout: Annotated[
        float | None,
        typer.Option(min=0, help="Seconds that it may execute; waiting does not count."),
    ] = None,
    include_temp: Annotated[
        bool, typer.Option("--include-temp", help="Download previews too.")
    ] = False,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Submit a workflow, wait for its end, download what it has made.

    Ctrl-C takes its prompt back. No file in DIR is overwritten.
    """
    workflow = workflow_in(file)
    # Without a websocket only the bar is less lively.
    logging.getLogger("workers.comfyui.notifications").setLevel(logging.ERROR)
    with open_server(url) as server, bar() as show:
        execution = server.execute(
            workflow,
            output,
            timeout=timeout,
            on_progress=lambda now: show(now.value, _description(now)),
            include_temp=include_temp,
        )
    if as_json:
        print_json(_as_json(execution))
    else:
        _print(execution)


def _description(progress: Progress) -> str:
    steps = f" {progress.step}/{progress.steps}" if progress.steps else ""
    return str(cell(progress.class_type or progress.stage)) + steps


def _as_json(execution: Execution) -> dict[str, object]:
    return {
        "prompt_id": execution.prompt_id,
        "files": [
            {"node_id": one.node_id, "kind": one.kind, "path": str(one.path)}
            for one in execution.files
        ],
        "values": execution.values,
    }


def _print(execution: Execution) -> None:
    table = Table("node", "kind", "file")
    for one in execution.files:
        table.add_row(cell(one.node_id), cell(one.kind), cell(str(one.path)))
    for node_id, shown in execution.values.items():
        for name, value in shown.items():
            table.add_row(cell(node_id), cell(name), cell(json.dumps(value, ensure_ascii=False)))
    if table.row_count:
        print_table(table)
    else:
        typer.echo("It has made no file and shown nothing.")
