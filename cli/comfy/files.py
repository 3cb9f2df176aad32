"""`comfyfleet comfy view`: a file on the server."""

import re
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cli.comfy.client import Url, open_server
from cli.errors import CommandError
from cli.output import AsJson, cell, print_json
from tasks.request import shown
from workers.comfyui.model import FileRef
from workers.direct.saving import local_name, pieces, write


class Folder(StrEnum):
    """The server's folders of files."""

    OUTPUT = "output"
    INPUT = "input"
    TEMP = "temp"


def view(
    file: Annotated[
        str,
        typer.Argument(metavar="FILE", help="As history prints it: 'shots/a.png', 'b.png [temp]'."),
    ],
    *,
    folder: Annotated[
        Folder | None, typer.Option("--type", help="Default: output.", show_default=False)
    ] = None,
    subfolder: Annotated[str, typer.Option(help="Where in there, if FILE does not say.")] = "",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="File or folder to write to; - is stdout. Default: here, under its own name.",
            show_default=False,
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file.")] = False,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Download a file from the server."""
    wanted = file_named(file, folder, subfolder)
    if output == Path("-"):
        with open_server(url) as server, server.view(wanted) as download:
            sys.stdout.buffer.writelines(pieces(download.read))
            sys.stdout.buffer.flush()
        return
    path = _target(output, wanted)
    if not path.parent.is_dir():
        raise CommandError(f"{shown(str(path.parent))} is no folder")
    if path.exists() and not path.is_file():
        raise CommandError(f"{shown(str(path))} is no file; -o - writes to stdout")
    if path.exists() and not force:
        raise CommandError(f"{shown(str(path))} is there already; --force overwrites it")
    with open_server(url) as server, server.view(wanted) as download:
        write(pieces(download.read), path, overwrite=force)
    size = path.stat().st_size
    if as_json:
        print_json({"path": str(path), "size_bytes": size})
    else:
        typer.echo(f"{cell(str(path))} ({size:,} bytes)")


def name_of(file: FileRef) -> str:
    """How a file is printed, and understood by `view`."""
    path = f"{file.subfolder}/{file.filename}" if file.subfolder else file.filename
    return path if file.type == Folder.OUTPUT else f"{path} [{file.type}]"


def file_named(name: str, folder: Folder | None, subfolder: str) -> FileRef:
    """The file that is printed so, in a folder and below a subfolder if these are named.

    Raises:
        CommandError: the name leads nowhere, or out of the server's folder.
    """
    noted = re.fullmatch(r"(.*?) ?\[(input|output|temp)\]", name, re.DOTALL)
    path, kind = (noted[1], noted[2]) if noted and folder is None else (name, folder)
    below, _, filename = path.rpartition("/")
    parts = [part for part in (subfolder.rstrip("/"), below) if part]
    whole = "/".join([*parts, filename])
    if not filename or whole.startswith("/") or ".." in re.split(r"[/\\]", whole):
        raise CommandError(
            f"found {shown(whole)}, expected a file's name, below the server's folder of its type"
        )
    return FileRef(filename, "/".join(parts), kind or Folder.OUTPUT)


def _target(output: Path | None, file: FileRef) -> Path:
    if output is None:
        return Path(local_name(file.filename))
    return output / local_name(file.filename) if output.is_dir() else output
