"""`comfyfleet show`: a job's story, its attempts and its files."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import typer
from rich.table import Table

from cli.errors import CommandError
from cli.exit_codes import ExitCode
from cli.finding import UNKNOWN, Found, find
from cli.fleet import open_ledger
from cli.job_ids import Job
from cli.output import AsJson, attempts_table, cell, print_json, print_table, short, size
from cli.result import Prefix
from cli.telling import sentence
from cli.timeline import Moment, moments
from cli.times import clock, duration
from tasks.errors import StorageDeniedError, StorageUnavailableError
from tasks.result import Attempt, JobResult


@dataclass(frozen=True)
class Story:
    """What is known of a job.

    Attributes:
        job_id: of the job.
        found: how it stands, or ended.
        lines: what workers have told of it, oldest first.
    """

    job_id: str
    found: Found
    lines: Sequence[dict[str, Any]]

    @property
    def result(self) -> JobResult | None:
        """Of a job that succeeded."""
        content = self.found.result
        return JobResult.model_validate(content) if content is not None else None

    @property
    def attempts(self) -> Sequence[Attempt]:
        """Those that have ended."""
        return self.result.attempts if self.result is not None else self.found.attempts

    @property
    def files(self) -> list[dict[str, Any]]:
        """What is stored: of a job that goes on, as far as it has told."""
        if self.result is not None:
            wanted = {"node_id", "kind", "filename", "key", "uri", "url", "size_bytes"}
            return [one.model_dump(mode="json", include=wanted) for one in self.result.outputs]
        names = ("node_id", "key", "size_bytes")
        stored = [line for line in self.lines if line.get("event") == "file_stored"]
        return [{name: line.get(name) for name in names} for line in stored]


def show_job(job: Job, prefix: Prefix = "", as_json: AsJson = False) -> None:
    """Print a job's story: what happened to it when and where, its attempts and files.

    While it runs, after it has ended, and after its result has expired. Workers write the story
    aside, a second later, and may lose lines of it. The exit code is that of `comfyfleet result`.
    """
    story = _story(job, prefix)
    if as_json:
        print_json(as_told(story))
    else:
        _print(story)
    raise typer.Exit(story.found.exit_code)


def as_told(story: Story) -> dict[str, Any]:
    """The story as programs read it."""
    found, result = story.found, story.result
    told: dict[str, Any] = {"job_id": story.job_id, "state": found.state}
    told["progress"] = found.progress and found.progress.model_dump(mode="json")
    told["error"] = found.error and {
        "type": type(found.error).__name__,
        "message": str(found.error),
    }
    told["timeline"] = list(story.lines)
    told["attempts"] = [one.model_dump(mode="json") for one in story.attempts]
    told["files"] = story.files
    told["timings"] = result and result.timings.model_dump(mode="json")
    told["manifest"] = result and result.manifest.model_dump(mode="json")
    return told


def _story(job_id: str, prefix: str) -> Story:
    with open_ledger() as ledger:
        lines = ledger.stories.of(job_id)
    try:
        found = find(job_id, prefix)
    except (CommandError, StorageUnavailableError, StorageDeniedError) as error:
        if not lines:
            raise
        # The story is there all the same.
        found = Found(_state_told(lines))
        typer.echo(f"comfyfleet: {error}", err=True)
    if found.state == UNKNOWN and lines:
        found = Found(_state_told(lines))
    return Story(job_id, found, lines)


def _state_told(lines: Sequence[dict[str, Any]]) -> str:
    """The state of a job of which only its story is left."""
    states = {"succeeded": "SUCCESS", "failed": "FAILURE", "cancelled": "REVOKED"}
    return states.get(str(lines[-1].get("outcome")), "STARTED")


def _print(story: Story) -> None:
    found = story.found
    told = moments(story.lines)
    if told:
        print_table(_timeline(told))
    if story.attempts:
        print_table(attempts_table(story.attempts))
    if story.files:
        print_table(_files(story.files))
    if found.result is not None:
        typer.echo(f"job {cell(story.job_id)} succeeded; {_manifest(found.result)}")
    elif found.exit_code is not ExitCode.OK:
        typer.echo(f"comfyfleet: job {cell(story.job_id)} {cell(sentence(found))}", err=True)


def _timeline(told: Sequence[Moment]) -> Table:
    table = Table(*short("at", "after"), "what")
    for one in told:
        table.add_row(clock(one.at), duration(one.at - told[0].at), cell(one.text))
    return table


def _files(files: Sequence[dict[str, Any]]) -> Table:
    linked = any(one.get("url") for one in files)
    table = Table("node", "size", "file", *(["url"] if linked else []))
    for one in files:
        row = (one["node_id"], size(one["size_bytes"]), one.get("uri") or one["key"])
        table.add_row(*map(cell, (*row, *([one.get("url")] if linked else []))))
    return table


def _manifest(result: dict[str, Any]) -> str:
    manifest = result["manifest"]
    return f"its manifest is {cell('s3://' + manifest['bucket'] + '/' + manifest['key'])}"
