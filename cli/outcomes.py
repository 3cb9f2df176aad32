"""What became of the jobs that a command has waited for."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from rich.table import Table

from cli.exit_codes import ExitCode
from cli.output import cell, print_table
from tasks import JobResult
from tasks.errors import JobCancelledError


@dataclass(frozen=True)
class Outcome:
    """A job that has ended.

    Attributes:
        job_id: of the job.
        row: of its batch, from 1; none if it is one job.
        result: or why there is none.
        files: where its files were saved.
    """

    job_id: str
    row: int | None
    result: JobResult | Exception
    files: Sequence[Path] = ()

    def as_json(self) -> dict[str, Any]:
        """The outcome as programs read it.

        Of one job the result's own fields, of a batch's in the words of `comfyfleet result --json`.
        """
        told: dict[str, Any] = {"job_id": self.job_id}
        if self.row is not None:
            told["row"] = self.row
        if isinstance(self.result, JobResult):
            result = self.result.model_dump(mode="json")
            told |= {"state": "SUCCESS"}
            told |= result if self.row is None else {"result": result}
        else:
            cancelled = isinstance(self.result, JobCancelledError)
            error = {"type": type(self.result).__name__, "message": str(self.result)}
            told |= {"state": "REVOKED" if cancelled else "FAILURE", "error": error}
        if self.files:
            told["files"] = [str(path) for path in self.files]
        return told


def collect(
    job_ids: Sequence[str],
    results: Sequence[JobResult | Exception],
    folder: Path | None,
    *,
    is_one: bool,
) -> list[Outcome]:
    """What became of each job, its files saved to a folder if there is one.

    Raises:
        CommandError: a file is gone.
        StorageUnavailableError, StorageDeniedError: the object store does not give the files.
        OSError: the folder cannot be written.
    """
    # It loads much that few commands need.
    from cli.download import Downloads

    width = len(str(len(results)))
    outcomes = []
    with closing(Downloads()) as downloads:
        for row, (job_id, result) in enumerate(zip(job_ids, results, strict=True), 1):
            files: list[Path] = []
            if folder is not None and isinstance(result, JobResult):
                own = folder if is_one else folder / str(row).zfill(width)
                files = downloads.save(result, own)
            outcomes.append(Outcome(job_id, None if is_one else row, result, files))
    return outcomes


def print_outcomes(outcomes: Sequence[Outcome]) -> None:
    """Print a table of the files that were made, and what else there is to tell."""
    _print(outcomes, ("node", "kind", "size", "file"), _files)
    print_shown(outcomes)


def print_shown(outcomes: Sequence[Outcome]) -> None:
    """Print tables of what nodes have shown that is no file, and of seeds that were random."""
    _print(outcomes, ("node", "shown", "value"), _values)
    _print(outcomes, ("input", "seed"), _seeds)


def _print(
    outcomes: Sequence[Outcome],
    columns: Sequence[str],
    lines_of: Callable[[Outcome], Iterable[Sequence[str]]],
) -> None:
    """Print a table of some lines of each outcome, unless there is none."""
    lines = [(str(one.row), *line) for one in outcomes for line in lines_of(one)]
    if not lines:
        return
    are_rows = any(one.row is not None for one in outcomes)
    table = Table(*(["row"] if are_rows else []), *columns)
    for line in lines:
        table.add_row(*map(cell, line if are_rows else line[1:]))
    print_table(table)


def _files(one: Outcome) -> Iterator[Sequence[str]]:
    outputs = one.result.outputs if isinstance(one.result, JobResult) else []
    for number, output in enumerate(outputs):
        file = str(one.files[number]) if one.files else output.uri
        yield output.node_id, output.kind, f"{output.size_bytes / 1000:.1f} kB", file


def _values(one: Outcome) -> Iterator[Sequence[str]]:
    values = one.result.values if isinstance(one.result, JobResult) else {}
    for node_id, shown in values.items():
        for name, value in shown.items():
            yield node_id, name, json.dumps(value, ensure_ascii=False)


def _seeds(one: Outcome) -> Iterator[Sequence[str]]:
    seeds = one.result.seeds if isinstance(one.result, JobResult) else {}
    for address, seed in seeds.items():
        yield address, str(seed)


def fail_if_any(outcomes: Sequence[Outcome]) -> None:
    """End the command with 1 and a sentence if a job has no result."""
    failed = [one for one in outcomes if isinstance(one.result, Exception)]
    if not failed:
        return
    first = failed[0]
    why = f"{type(first.result).__name__}: {first.result}"
    if first.row is None:
        sentence = f"job {first.job_id} failed: {why}"
    else:
        sentence = f"{len(failed)} of {len(outcomes)} jobs failed; row {first.row}: {why}"
    typer.echo(f"comfyfleet: {cell(sentence)}", err=True)
    raise typer.Exit(ExitCode.FAILED)
