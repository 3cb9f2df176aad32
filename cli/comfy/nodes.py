"""`comfyfleet comfy nodes`: the server's node classes, and what one of them takes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.table import Table

from cli.comfy.client import Url, open_server
from cli.errors import CommandError
from cli.output import AsJson, cell, print_json, print_table
from tasks.request import did_you_mean, shown
from workers.comfyui import ComfyUI
from workers.conversion.node_classes import input_spec

_CUSTOM = "custom_nodes."


@dataclass(frozen=True)
class Input:
    """An input of a node class, as people read it."""

    name: str
    type: str
    required: bool
    default: Any
    range: str
    choices: tuple[str, ...]


def show_nodes(
    class_type: Annotated[
        str | None,
        typer.Argument(metavar="[CLASS]", help="Show what it takes.", show_default=False),
    ] = None,
    choices: Annotated[int, typer.Option(min=0, help="Choices of an input to show.")] = 10,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """List the server's node classes, or show one: its inputs, their types, ranges and choices."""
    with open_server(url) as server:
        if class_type is not None:
            info = _info(server, class_type)
        else:
            classes = server.object_info()
    if class_type is not None:
        if as_json:
            print_json(info)
        else:
            _show(class_type, info, choices)
        return
    rows = [_row(name, classes[name]) for name in sorted(classes)]
    if as_json:
        print_json(rows)
        return
    table = Table("class", "name", "category", "pack")
    for row in rows:
        table.add_row(*map(cell, row.values()))
    print_table(table)


def pack_of(module: object) -> str:
    """The pack that a class comes from; ComfyUI's own classes are of `core`."""
    if not isinstance(module, str):
        return ""
    if module.startswith(_CUSTOM):
        return module.removeprefix(_CUSTOM)
    return "core" if module.partition(".")[0] in ("nodes", "comfy_extras") else module


def inputs_of(info: Mapping[str, Any]) -> Iterator[Input]:
    """The inputs of a class in the server's order, without the hidden ones."""
    sections = info.get("input")
    for section in ("required", "optional"):
        specs = sections.get(section) if isinstance(sections, Mapping) else None
        for name, spec in specs.items() if isinstance(specs, Mapping) else ():
            kind, options = input_spec(spec)
            offered = options.get("options")
            yield Input(
                name,
                kind,
                section == "required",
                options.get("default"),
                _range(options),
                tuple(map(str, offered)) if isinstance(offered, list) else (),
            )


def _info(server: ComfyUI, class_type: str) -> Mapping[str, Any]:
    info = server.object_info(class_type).get(class_type)
    if not isinstance(info, Mapping):
        hint = did_you_mean(class_type, server.object_info())
        raise CommandError(
            f"ComfyUI at {server.base_url} does not know the node class {shown(class_type)}{hint}"
        )
    return info


def _row(name: str, info: Any) -> dict[str, str]:
    of_class = info if isinstance(info, Mapping) else {}
    return {
        "class": name,
        "display_name": str(of_class.get("display_name") or name),
        "category": str(of_class.get("category") or ""),
        "pack": pack_of(of_class.get("python_module")),
    }


def _show(name: str, info: Mapping[str, Any], choices: int) -> None:
    about = Table(show_header=False)
    for title, text in _row(name, info).items():
        about.add_row(title.replace("_", " "), cell(text))
    if description := info.get("description"):
        about.add_row("description", cell(str(description)))
    outputs = info.get("output_name") or info.get("output")
    if isinstance(outputs, list) and outputs:
        about.add_row("outputs", cell(", ".join(map(str, outputs))))
    print_table(about)
    table = Table("input", "type", "", "default", "range", "choices")
    for one in inputs_of(info):
        default = "" if one.default is None else str(one.default)
        table.add_row(
            cell(one.name),
            cell(one.type),
            "required" if one.required else "optional",
            cell(default),
            cell(one.range),
            cell(_first(one.choices, choices)),
        )
    print_table(table)


def _range(options: Mapping[str, Any]) -> str:
    match options.get("min"), options.get("max"):
        case None, None:
            return ""
        case least, None:
            ends = f"from {least}"
        case None, most:
            ends = f"up to {most}"
        case least, most:
            ends = f"{least} to {most}"
    step = options.get("step")
    return ends if step is None else f"{ends}, step {step}"


def _first(choices: tuple[str, ...], most: int) -> str:
    more = len(choices) - most
    listed = ", ".join(choices[:most])
    return f"{listed}, ... {more} more" if more > 0 else listed
