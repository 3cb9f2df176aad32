"""`comfyfleet convert`: a workflow as ComfyUI's UI saves it, in API format."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.comfy.client import open_server
from cli.errors import CommandError, UsageError
from cli.output import print_json
from cli.workflow_files import WorkflowFile, workflow_in
from tasks.workflow import Workflow, check_workflow
from tasks.workflow_form import is_export
from workers.conversion.convert import convert


def convert_command(
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


def convert_file(file: Path, object_info: Path | None, url: str | None) -> Workflow:
    """The workflow in a file, in API format; one that has it already stays as it is.

    Args:
        file: an export of the UI or a workflow in API format, as JSON or embedded in an image.
        object_info: a file with what a server's `/object_info` says, instead of a server.
        url: of the server to ask; default: that of the settings.

    Raises:
        CommandError: the file for `/object_info` is none, or the URL.
        JobError: there is no workflow in the file, it cannot be converted, or the server cannot be
            asked.
    """
    given = workflow_in(file)
    workflow = convert(given, _object_info(object_info, url)) if is_export(given) else given
    check_workflow(workflow)
    return workflow


def _object_info(file: Path | None, url: str | None) -> dict[str, Any]:
    if file is not None and url is not None:
        raise UsageError("--object-info and --url: only one of them can say what nodes there are")
    if file is not None:
        return _read(file)
    with open_server(url) as server:
        return server.object_info()


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CommandError(f"{file}: is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise CommandError(f"{file}: is no answer of /object_info, which is a JSON object")
    return found
