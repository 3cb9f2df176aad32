"""Workflows as commands are given them: a file, or what comes on stdin."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.errors import CommandError
from tasks.errors import InvalidWorkflowError
from tasks.workflow_file import read_workflow

STDIN = "-"

WorkflowFile = Annotated[
    Path, typer.Argument(metavar="FILE", help="A workflow, as JSON or in an image; - reads stdin.")
]


def _stdin() -> bytes:
    # Python has none if it was closed before the start.
    return sys.stdin.buffer.read() if sys.stdin is not None else b""


def workflow_in(file: Path) -> dict[str, Any]:
    """The workflow in a file, whatever of those that have one; `-` is stdin.

    Raises:
        CommandError: there is none in it; names the file.
        OSError: it cannot be read.
    """
    try:
        if str(file) == STDIN:
            return read_workflow(_stdin())
        return read_workflow(file)
    except InvalidWorkflowError as error:
        raise CommandError(f"{file}: {error.message}") from error
