"""`comfyfleet`: the commands and what they delegate to."""

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cli.errors import CommandError
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

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("settings")
def show_settings(as_json: AsJson = False) -> None:
    """Print the effective settings, secrets masked."""
    values = load().masked()
    if as_json:
        typer.echo(json.dumps(values, indent=2))
        return
    table = Table("variable", "value")
    for variable, value in values.items():
        table.add_row(variable, escape(value) if value is not None else "[dim]unset[/dim]")
    Console().print(table)


@app.command()
def sandbox(
    servers: Annotated[int, typer.Option(min=1, help="Stand-in ComfyUI servers to start.")] = 1,
) -> None:
    """Start Valkey, SeaweedFS and stand-in ComfyUI servers; print the environment to export."""
    with _needing_extra("sandbox"):
        from sandbox.stack import Stack
    with Stack() as stack:
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
