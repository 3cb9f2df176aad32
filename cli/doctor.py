"""`comfyfleet doctor`: everything that a job needs, tried for real."""

import logging
from collections.abc import Iterable
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from cli.output import AsJson, cell, print_json
from settings import SettingsError, load
from tasks import app
from workers.checks.finding import Finding, Status
from workers.checks.running import exit_code, run

_WRONG_SETTINGS = 2

_SIGNS = {
    Status.OK: Text("✔", style="green"),
    Status.WARN: Text("!", style="yellow"),
    Status.FAIL: Text("✘", style="red"),
    Status.SKIPPED: Text("-", style="dim"),
}


def doctor(
    no_render: Annotated[
        bool, typer.Option("--no-render", help="Render nothing, and enqueue no job.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Try everything that a job needs, in order, and say how to mend what fails.

    The exit code is 0 if nothing fails, whatever it warns of, 1 if something fails, and 2 if
    settings are wrong.
    """
    # What clients log of their troubles is said by the findings.
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        settings = load()
    except SettingsError as error:
        _show_all([_wrong(error)], as_json=as_json)
        raise typer.Exit(_WRONG_SETTINGS) from error
    # It loads what few commands need.
    from workers.checks.doctor import all_checks

    with all_checks(settings, app, render=not no_render) as checks:
        findings = _show_all(run(checks), as_json=as_json)
    raise typer.Exit(exit_code(findings))


def _wrong(error: SettingsError) -> Finding:
    sentence = "; ".join(str(error).splitlines())
    return Finding("settings", Status.FAIL, sentence, "correct it, or unset it for its default")


def _show_all(findings: Iterable[Finding], *, as_json: bool) -> list[Finding]:
    if as_json:
        found = list(findings)
        print_json([_as_json(one) for one in found])
        return found
    console = Console()
    shown = []
    for one in findings:
        console.print(_line(one), soft_wrap=True)
        shown.append(one)
    counts = [(sum(one.status is status for one in shown), status) for status in Status]
    typer.echo(", ".join(f"{count} {status}" for count, status in counts if count))
    return shown


def _line(one: Finding) -> Text:
    line = Text.assemble(_SIGNS[one.status], f" {one.name}: ", cell(one.sentence))
    if one.fix:
        line.append(f"\n    → {cell(one.fix)}")
    return line


def _as_json(one: Finding) -> dict[str, Any]:
    return vars(one)
