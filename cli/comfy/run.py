"""`comfyfleet comfy run`: a workflow from its file to its pictures."""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table

from cli.comfy.client import Url, open_server
from cli.output import AsJson, cell, print_json, print_table
from tasks.result import Progress
from tasks.workflow_file import read_workflow
from workers.comfyui import Execution


def run(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A workflow, as JSON or in an image.")
    ],
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
    workflow = read_workflow(file)
    with open_server(url) as server, _bar() as show:
        execution = server.execute(
            workflow, output, timeout=timeout, on_progress=show, include_temp=include_temp
        )
    if as_json:
        print_json(_as_json(execution))
    else:
        _print(execution)


@contextmanager
def _bar() -> Iterator[Callable[[Progress], None]]:
    """A bar for people, where they see it; nothing of it goes where the result goes."""
    # Without a websocket only the bar is less lively.
    logging.getLogger("workers.comfyui.notifications").setLevel(logging.ERROR)
    console = Console(stderr=True)
    columns = (
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
    )
    with Bars(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        bar = bars.add_task("waiting", total=1.0)

        def show(progress: Progress) -> None:
            bars.update(bar, completed=progress.value, description=_description(progress))

        yield show


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
