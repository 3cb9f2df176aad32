"""`comfyfleet result`: what became of a job, wherever that is still known."""

from typing import Annotated, Any

import typer
from rich.table import Table

from cli.finding import UNKNOWN, Found, find
from cli.job_ids import Job
from cli.output import AsJson, attempts_table, cell, print_json, print_table
from cli.telling import sentence
from tasks.result import JobResult

Prefix = Annotated[
    str, typer.Option(help="Its output.prefix, where nothing but its manifest is left.")
]


def result(job: Job, prefix: Prefix = "", as_json: AsJson = False) -> None:
    """Print a job's result, even after it has expired; or how far the job is.

    The exit code is 0 if the job succeeded, 1 if it failed or was cancelled, 3 if it has not
    finished yet, and 4 if it is not known.
    """
    found = find(job, prefix)
    show(job, found, as_json=as_json)
    raise typer.Exit(found.exit_code)


def show(job_id: str, found: Found, *, as_json: bool) -> None:
    """Print what was found; what is no success says so on stderr, too."""
    if as_json:
        print_json(_as_json(job_id, found))
    elif found.result is not None:
        _show_result(found.result)
    elif found.attempts:
        print_table(attempts_table(found.attempts))
    if found.exit_code:
        typer.echo(f"comfyfleet: job {cell(job_id)} {sentence(found)}", err=True)


def _as_json(job_id: str, found: Found) -> dict[str, Any]:
    told: dict[str, Any] = {"job_id": job_id, "state": found.state}
    if found.result is not None:
        return {**told, "result": found.result}
    if found.progress is not None:
        told["progress"] = found.progress.model_dump(mode="json")
    if found.error is not None:
        told["error"] = {"type": type(found.error).__name__, "message": str(found.error)}
    if found.state != UNKNOWN:
        told["attempts"] = [one.model_dump(mode="json") for one in found.attempts]
    return told


def _show_result(content: dict[str, Any]) -> None:
    from cli.outcomes import Outcome, print_shown

    result = JobResult.model_validate(content)
    presigned = any(output.url for output in result.outputs)
    table = Table("node", "kind", "file", "size", "uri", *(["url"] if presigned else []))
    for output in result.outputs:
        size = f"{output.size_bytes / 1000:.1f} kB"
        of_file = (output.node_id, output.kind, output.filename, size, output.uri)
        table.add_row(*map(cell, (*of_file, *([output.url] if presigned else []))))
    if result.outputs:
        print_table(table)
    print_shown([Outcome(result.job_id, None, result)])
    print_table(attempts_table(result.attempts))
