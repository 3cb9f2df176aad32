"""`comfyfleet comfy stats | models | free`: the server itself."""

from typing import Annotated, Any

import typer
from rich.table import Table

from cli.comfy.client import Url, open_server
from cli.errors import CommandError
from cli.output import AsJson, cell, print_json, print_table
from tasks.request import did_you_mean, shown

_SYSTEM = (
    ("ComfyUI", "comfyui_version"),
    ("Python", "python_version"),
    ("PyTorch", "pytorch_version"),
    ("system", "os"),
)


def show_stats(url: Url = None, as_json: AsJson = False) -> None:
    """Show version, memory, devices and how many prompts run or wait."""
    with open_server(url) as server:
        stats, remaining = server.system_stats(), server.remaining()
    if as_json:
        print_json({"url": server.base_url, "queue_remaining": remaining, **stats})
        return
    table = Table(show_header=False)
    table.add_row("server", cell(server.base_url))
    system = _object(stats.get("system"))
    for name, field in _SYSTEM:
        table.add_row(name, cell(str(system.get(field, ""))))
    table.add_row("memory", _memory(system, "ram"))
    devices = stats.get("devices")
    for one in map(_object, devices if isinstance(devices, list) else ()):
        table.add_row(cell(f"device {one.get('name', '')}"), _memory(one, "vram"))
    table.add_row("prompts that run or wait", str(remaining))
    print_table(table)


def show_models(
    folder: Annotated[
        str | None, typer.Argument(metavar="[FOLDER]", help="Its files.", show_default=False)
    ] = None,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """List the server's model folders, or the model files in one of them."""
    with open_server(url) as server:
        names = server.model_folders()
        if folder is not None:
            if folder not in names:
                hint = did_you_mean(folder, names)
                raise CommandError(
                    f"ComfyUI at {server.base_url} has no model folder {shown(folder)}{hint}"
                )
            names = server.models(folder)
    if as_json:
        print_json(names)
        return
    if not names:
        typer.echo("There is no file in it.")
        return
    table = Table("folder" if folder is None else "file")
    for name in names:
        table.add_row(cell(name))
    print_table(table)


def free(url: Url = None) -> None:
    """Have the server let go of models and cached results, when what runs has ended."""
    with open_server(url) as server:
        server.free()
    typer.echo(
        f"ComfyUI at {server.base_url} lets go of its models and cached results as soon as "
        "no prompt runs."
    )


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _memory(of: dict[str, Any], kind: str) -> str:
    free_bytes, total = of.get(f"{kind}_free"), of.get(f"{kind}_total")
    if not isinstance(free_bytes, int | float) or not isinstance(total, int | float):
        return ""
    return f"{free_bytes / 2**30:.1f} of {total / 2**30:.1f} GiB free"
