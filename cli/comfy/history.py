"""`comfyfleet comfy history`: prompts that have ended."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.table import Table

from cli.comfy.client import Url, open_server
from cli.comfy.files import name_of
from cli.comfy.prompts import unknown_prompt
from cli.output import AsJson, cell, id_column, print_json, print_table
from tasks.errors import JobError
from workers.comfyui.history import (
    OutputFile,
    executed_at,
    executed_workflow,
    failure_in,
    output_files,
    shown_values,
)


@dataclass(frozen=True)
class Ended:
    """What became of a prompt."""

    prompt_id: str
    error: JobError | None
    at: float | None
    seconds: float | None
    files: list[OutputFile]
    values: dict[str, dict[str, Any]]


def show_history(
    prompt: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="One of them.", show_default=False)
    ] = None,
    most: Annotated[int, typer.Option("--max", min=1, help="The newest so many.")] = 20,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """List the prompts that have ended, the oldest first, with their files; or show one."""
    with open_server(url) as server:
        if prompt is None:
            entries = server.histories(max_items=most)
        else:
            entry = server.history(prompt)
            if entry is None:
                raise unknown_prompt(server, prompt)
            entries = {prompt: entry}
    ended = [read(prompt_id, entry) for prompt_id, entry in entries.items()]
    if as_json:
        print_json([_as_json(one) for one in ended] if prompt is None else _as_json(ended[0]))
    elif prompt is not None:
        _show(ended[0])
    elif ended:
        _list(ended)
    else:
        typer.echo("No prompt has ended, or all are forgotten.")


def read(prompt_id: str, entry: Mapping[str, Any]) -> Ended:
    """What a history entry says."""
    times = executed_at(entry)
    return Ended(
        prompt_id,
        failure_in(entry, executed_workflow(entry)),
        times[1] if times else None,
        round(times[1] - times[0], 3) if times else None,
        output_files(entry, include_temp=True),
        shown_values(entry),
    )


def _as_json(one: Ended) -> dict[str, Any]:
    error = one.error
    return {
        "prompt_id": one.prompt_id,
        "succeeded": error is None,
        "error": {"type": type(error).__name__, "message": error.message} if error else None,
        "ended_at": one.at,
        "seconds": one.seconds,
        "files": [
            {"node_id": output.node_id, "kind": output.kind, "file": name_of(output.file)}
            for output in one.files
        ],
        "values": one.values,
    }


def _list(ended: Sequence[Ended]) -> None:
    table = Table(
        id_column("prompt", [one.prompt_id for one in ended]),
        "ended",
        "seconds",
        "outcome",
        "files",
    )
    for one in ended:
        files = ", ".join(name_of(output.file) for output in one.files)
        table.add_row(cell(one.prompt_id), _time(one), _seconds(one), _outcome(one), cell(files))
    print_table(table)


def _show(one: Ended) -> None:
    table = Table(show_header=False)
    table.add_row("prompt", cell(one.prompt_id))
    table.add_row("ended", _time(one))
    table.add_row("seconds", _seconds(one))
    table.add_row("outcome", _outcome(one))
    if one.error is not None:
        table.add_row("error", cell(one.error.message))
    for output in one.files:
        table.add_row(cell(f"node {output.node_id}, {output.kind}"), cell(name_of(output.file)))
    for node_id, shown in one.values.items():
        for name, value in shown.items():
            text = json.dumps(value, ensure_ascii=False)
            table.add_row(cell(f"node {node_id}, {name}"), cell(text))
    print_table(table)


def _outcome(one: Ended) -> str:
    return type(one.error).__name__ if one.error else "succeeded"


def _time(one: Ended) -> str:
    return f"{datetime.fromtimestamp(one.at, UTC):%Y-%m-%d %H:%M:%S UTC}" if one.at else ""


def _seconds(one: Ended) -> str:
    return "" if one.seconds is None else f"{one.seconds:.1f}"
