"""The page on the command line."""

from collections.abc import Iterator
from typing import Any

from typer.core import TyperGroup

from cli.app import COMMANDS
from cli.exit_codes import ExitCode
from reference.tables import table

# What a value is to be, in words of people.
_KINDS = {"STR": "TEXT", "INT": "NUMBER", "FLOAT": "NUMBER"}


def cli_page() -> str:
    """Every command with its arguments and options, and what exit codes say."""
    codes = [(f"`{int(code)}`", code.meaning) for code in ExitCode]
    lines = [
        "# Command line",
        "",
        "Errors are one sentence on stderr. `--json` prints JSON on stdout and nothing else there;",
        "moments are Unix time, durations seconds. `comfyfleet --install-completion` has the shell",
        "complete commands, options, ids of the latest jobs, and states.",
        "",
        *table(("exit code", "meaning"), codes),
    ]
    for one in COMMANDS.values():
        lines += _described(one.loaded(), f"comfyfleet {one.name}")
    return "\n".join([*lines, ""])


def _described(command: Any, path: str, level: str = "##") -> list[str]:
    """The lines on a command, and on those below it."""
    help_text = (command.help or "").strip()
    shown = [one for one in command.params if not getattr(one, "hidden", False)]
    arguments = [one for one in shown if one.param_type_name == "argument"]
    options = [one for one in shown if one.param_type_name == "option" and one.name != "help"]
    usage = " ".join([path, *map(_metavar, arguments), *(["[OPTIONS]"] if options else [])])
    lines = ["", f"{level} {path}", "", help_text]
    if isinstance(command, TyperGroup):
        for name, below in command.commands.items():
            lines += _described(below, f"{path} {name}", "###")
        return lines
    rows = [*map(_argument, arguments), *map(_option, options)]
    lines += ["", "```text", usage, "```"]
    return [*lines, "", *table(("argument", "meaning", "default"), rows)] if rows else lines


def _metavar(argument: Any) -> str:
    name = str(argument.metavar or argument.name.upper())
    return name if argument.required else f"[{name}]"


def _argument(argument: Any) -> tuple[str, str, str]:
    return f"`{_metavar(argument)}`", argument.help or "", ""


def _option(option: Any) -> tuple[str, str, str]:
    names = ", ".join(_spelled(option))
    default = option.default
    plain = default is None or default is False or callable(default) or default in ([], (), "")
    return f"`{names}`", option.help or "", "" if plain else f"`{default}`"


def _spelled(option: Any) -> Iterator[str]:
    kind = option.metavar or option.type_descriptor.annotation.__name__.upper()
    metavar = "" if option.is_flag else f" {_KINDS.get(kind, kind)}"
    for name in option.opts:
        yield f"{name}{metavar}"
