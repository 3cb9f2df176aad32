"""`comfyfleet check`: which servers of the fleet can run a workflow, and what the others lack."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import typer
from rich.table import Table
from rich.text import Text

from cli.exit_codes import ExitCode
from cli.fleet import open_servers
from cli.output import AsJson, cell, print_json, print_table
from cli.workflow_files import WorkflowFile, workflow_in
from settings import load
from tasks.request import JobRequest, parse_request
from tasks.workflow import Workflow, check_size, check_workflow
from workers.execution.node_policy import NodePolicy
from workers.execution.preparation import prepare
from workers.ledger.servers import Device, Server, Servers
from workers.routing.capabilities import Capabilities
from workers.routing.judgement import Prepare, judge
from workers.routing.lacks import Lack, hinted

# Lacks that are told with what is nearly meant.
_MOST_HINTS = 20

# Decides between the branches of an export that chooses at random.
_JOB = "check"


@dataclass(frozen=True)
class Finding:
    """A live server, and what it lacks; None while it has not told what it can do."""

    server: Server
    lacks: tuple[Lack, ...] | None

    @property
    def can_run(self) -> bool | None:
        """Whether it can run the workflow; None if that is not known."""
        return None if self.lacks is None else not self.lacks


def check(file: WorkflowFile, as_json: AsJson = False) -> None:
    """Say for each live server of the fleet whether it can run a workflow, or what it lacks.

    The exit code is 0 if a server that takes jobs can run it, 1 if none can, and 3 if no server
    is live.
    """
    findings = check_file(file)
    show_findings(findings, as_json=as_json)
    raise typer.Exit(exit_code(findings))


def check_file(file: Path) -> list[Finding]:
    """What each live server lacks for the workflow in a file.

    Raises:
        CommandError: Redis is away.
        JobError: there is no workflow in the file, or none that any server could run.
    """
    settings, now = load(), time.time()
    max_bytes = settings.workflow_max_bytes
    allowed = NodePolicy(settings.allowed_nodes, settings.denied_nodes)
    request = _request(file, max_bytes)

    def prepared(nodes: Mapping[str, Any]) -> Workflow:
        return prepare(
            *(request, _JOB, now, lambda: nodes), max_bytes=max_bytes, nodes_allowed=allowed
        )

    with open_servers() as servers:
        lacks = cache(partial(_lacks, prepared, servers))
        return [Finding(one, lacks(one.digest)) for one in servers.live()]


def show_findings(findings: list[Finding], *, as_json: bool) -> None:
    """Print them."""
    if as_json:
        print_json([_as_json(one) for one in findings])
    elif findings:
        _print(findings)
    if not findings:
        typer.echo(
            "comfyfleet: no server is live: no worker on this broker has told of one lately",
            err=True,
        )


def exit_code(findings: list[Finding]) -> int:
    """What the command says to other programs."""
    if not findings:
        return ExitCode.NOT_FINISHED
    can = any(one.can_run and one.server.takes_jobs for one in findings)
    return ExitCode.OK if can else ExitCode.FAILED


def _request(file: Path, max_bytes: int) -> JobRequest:
    workflow = workflow_in(file)
    # What is no workflow at all is no server's fault.
    check_workflow(workflow)
    check_size(workflow, max_bytes)
    return parse_request((), {"workflow": workflow})


def _lacks(prepared: Prepare, servers: Servers, digest: str) -> tuple[Lack, ...] | None:
    """What servers with such capabilities lack; None if these are not known, or not readable."""
    packed = servers.capabilities(digest)
    if packed is None:
        return None
    try:
        capabilities = Capabilities.unpacked(packed)
    except ValueError:
        return None
    found = judge(prepared, capabilities).lacks
    return hinted(found, capabilities.nodes, capabilities.models, most=_MOST_HINTS)


def _as_json(one: Finding) -> dict[str, Any]:
    lacks = None if one.lacks is None else [vars(lack) for lack in one.lacks]
    return {**one.server.model_dump(mode="json"), "can_run": one.can_run, "lacks": lacks}


def _print(findings: list[Finding]) -> None:
    table = Table("server", "ComfyUI", "devices", "takes jobs", "can run it", "lacks")
    for one in findings:
        server = one.server
        table.add_row(
            cell(server.place),
            cell(server.version),
            cell("; ".join(map(_device, server.devices))),
            _yes(server.takes_jobs),
            _yes(one.can_run),
            Text("\n").join(map(_lack, one.lacks or ())),
        )
    print_table(table)


def _lack(lack: Lack) -> Text:
    doubt = "" if lack.is_sure else " (the node may see it otherwise)"
    return cell(lack.message + doubt)


def _device(one: Device) -> str:
    if one.vram_free_bytes is None or one.vram_total_bytes is None:
        return one.name
    free, total = (size / 2**30 for size in (one.vram_free_bytes, one.vram_total_bytes))
    return f"{one.name} ({free:.1f} of {total:.1f} GiB free)"


def _yes(answer: bool | None) -> str:
    return "not known" if answer is None else "yes" if answer else "no"
