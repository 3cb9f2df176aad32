"""`comfyfleet convert`: a workflow as ComfyUI's UI saves it, in API format."""

import json
from pathlib import Path
from typing import Any

from cli.errors import CommandError
from settings import load
from tasks.workflow import Workflow, check_workflow
from workers.bootstrap import comfyui_client
from workers.conversion.convert import convert
from workers.conversion.export import is_export


def convert_file(file: Path, object_info: Path | None, url: str | None) -> Workflow:
    """The workflow in a file, in API format; one that has it already stays as it is.

    Args:
        file: an export of the UI, or a workflow in API format.
        object_info: a file with what a server's `/object_info` says, instead of a server.
        url: of the server to ask; default: that of the settings.

    Raises:
        CommandError: a file is no JSON, or no workflow.
        JobError: the workflow cannot be converted, or the server cannot be asked.
    """
    given = read_object(file, "workflow")
    workflow = convert(given, _object_info(object_info, url)) if is_export(given) else given
    check_workflow(workflow)
    return workflow


def _object_info(file: Path | None, url: str | None) -> dict[str, Any]:
    if file is not None and url is not None:
        raise CommandError("--object-info and --url: only one of them can say what nodes there are")
    if file is not None:
        return read_object(file, "answer of /object_info")
    with comfyui_client(load(), url) as server:
        return server.object_info()


def read_object(file: Path, what: str) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        CommandError: there is none; says `what` it should have been.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CommandError(f"{file}: is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise CommandError(f"{file}: is no {what}, which is a JSON object")
    return found
