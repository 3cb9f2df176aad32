"""Why a command ended, as a sentence."""

import sys
from pathlib import Path
from traceback import extract_tb
from typing import Any, NoReturn

import typer

from cli.errors import CommandError
from cli.exit_codes import ExitCode
from sandbox.processes import StartupError
from settings import SettingsError
from tasks.errors import JobError

# What was typed is not understood; typer names it nowhere.
_Mistyped: Any = typer.BadParameter.__base__

# What says by itself what is wrong.
_TOLD = (JobError, StartupError, OSError)


def fail(error: Exception) -> NoReturn:
    """End the process with the sentence that tells of an error, and its exit code."""
    match error:
        case SettingsError():
            typer.echo(f"comfyfleet: wrong settings\n{error}", err=True)
            sys.exit(ExitCode.USAGE)
        case BrokenPipeError():
            # Who reads has had enough; nothing is left to be said.
            sys.stderr.close()
            sys.exit(ExitCode.FAILED)
        case _ if isinstance(error, _Mistyped):
            _correct(error)
            sys.exit(ExitCode.USAGE)
        case CommandError():
            typer.echo(f"comfyfleet: {error}", err=True)
            sys.exit(error.exit_code)
        case OSError() if error.filename is not None and error.strerror:
            typer.echo(f"comfyfleet: {error.filename}: {error.strerror}", err=True)
        case _ if isinstance(error, _TOLD):
            typer.echo(f"comfyfleet: {error}", err=True)
        case _:
            typer.echo(f"comfyfleet: a fault of its own: {_where(error)}", err=True)
    sys.exit(ExitCode.FAILED)


def _correct(error: Any) -> None:
    """Say what was typed wrong, and who tells more; nothing if it was just the name of a group."""
    told = error.format_message().strip()
    if told:
        path = error.ctx.command_path if error.ctx is not None else "comfyfleet"
        typer.echo(f"comfyfleet: {told}\nTry '{path} --help'.", err=True)


def _where(error: Exception) -> str:
    """What happened, and where, without a traceback."""
    frames = extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}{place}{': ' if text else ''}{text:.200}"
