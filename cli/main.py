"""`comfyfleet`: the commands and what they delegate to."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.table import Table

from cli.batch import show_batch
from cli.check import check_file, exit_code, show_findings
from cli.comfy import comfy
from cli.convert import convert_file
from cli.dead import dead
from cli.doctor import doctor
from cli.errors import CommandError
from cli.output import AsJson, cell, print_json, print_table
from cli.result import find, show
from cli.submit import submit
from cli.worker import work
from cli.workflow_files import WorkflowFile
from sandbox.processes import StartupError
from settings import SettingsError, load
from tasks import JobError

app = typer.Typer(
    name="comfyfleet",
    help="A fleet of ComfyUI servers behind a Celery queue.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

app.add_typer(dead, name="dead")
app.add_typer(comfy, name="comfy")
app.command()(submit)
app.command("batch")(show_batch)
app.command()(doctor)
app.command("worker")(work)


@app.command("settings")
def show_settings(as_json: AsJson = False) -> None:
    """Print the effective settings, secrets masked."""
    values = load().masked()
    if as_json:
        print_json(values)
        return
    table = Table("variable", "value")
    for variable, value in values.items():
        table.add_row(variable, cell(value) if value is not None else "[dim]unset[/dim]")
    print_table(table)


@app.command()
def result(
    job: Annotated[str, typer.Argument(metavar="JOB", help="The job's id.", show_default=False)],
    prefix: Annotated[
        str, typer.Option(help="Its output.prefix, where nothing but its manifest is left.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Print a job's result, even after it has expired; or how far the job is.

    The exit code is 0 if the job succeeded, 1 if it failed or was cancelled, 3 if it has not
    finished yet, and 4 if it is not known.
    """
    found = find(job, prefix)
    show(job, found, as_json=as_json)
    raise typer.Exit(found.exit_code)


@app.command()
def convert(
    file: WorkflowFile,
    object_info: Annotated[
        Path | None, typer.Option(help="File with a server's /object_info, instead of a server.")
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="Server whose nodes count; default: COMFYUI_URL.")
    ] = None,
) -> None:
    """Print a workflow that ComfyUI's UI has saved, or embedded in an image, in API format."""
    print_json(convert_file(file, object_info, url))


@app.command()
def check(
    file: WorkflowFile,
    as_json: AsJson = False,
) -> None:
    """Say for each live server of the fleet whether it can run a workflow, or what it lacks.

    The exit code is 0 if a server that takes jobs can run it, 1 if none can, and 3 if no server
    is live.
    """
    findings = check_file(file)
    show_findings(findings, as_json=as_json)
    raise typer.Exit(exit_code(findings))


@app.command()
def sandbox(
    servers: Annotated[int, typer.Option(min=1, help="Stand-in ComfyUI servers to start.")] = 1,
) -> None:
    """Start Valkey, SeaweedFS and stand-in ComfyUI servers; print the environment to export.

    With COMFYUI_URL set that server is used, and of the stand-ins there is one less.
    """
    with _needing_extra("sandbox"):
        from sandbox.stack import Stack
    with Stack(load().own_comfyui_url) as stack:
        urls = [stack.comfyui_url, *(stack.stand_in().url for _ in range(servers - 1))]
        for variable, value in stack.environment().items():
            typer.echo(f"export {variable}={value}")
        for url in urls[1:]:
            typer.echo(f"# one more server: COMFYUI_URL={url}")
        sys.stdout.flush()
        typer.echo("The stack runs until Ctrl-C.", err=True)
        signal.pause()


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Folder for the images.")] = Path("demo-output"),
) -> None:
    """Start the stack and a worker, render one image and a batch of three, save them."""
    with _needing_extra("sandbox"):
        from cli.demo import run_demo
    run_demo(output)


def main() -> None:
    """Run the command line; errors are a sentence on stderr, never a traceback."""
    # So that whatever was started is stopped on `kill` and a closed terminal as on Ctrl-C.
    for number in _ENDING:
        signal.signal(number, _interrupt)
    try:
        app()
    except SettingsError as error:
        typer.echo(f"comfyfleet: wrong settings\n{error}", err=True)
        sys.exit(2)
    except (JobError, StartupError, CommandError, OSError) as error:
        typer.echo(f"comfyfleet: {error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


@contextmanager
def _needing_extra(extra: str) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise CommandError(
            f"{error.name} is not installed; this command needs: pip install 'comfyfleet[{extra}]'"
        ) from error


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    # Once: a second one must not interrupt the stopping of what was started.
    for number in _ENDING:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt
