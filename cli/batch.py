"""`comfyfleet batch`: how far a batch is, its results, its end."""

from typing import Annotated

import typer
from rich.table import Table

from cli.errors import UnknownError
from cli.exit_codes import ExitCode
from cli.fleet import answering
from cli.following import Download, Wait, counts, follow
from cli.output import AsJson, id_column, print_json, print_table
from tasks import Batch
from tasks.errors import InvalidRequestError


def show_batch(
    batch_id: Annotated[str, typer.Argument(metavar="BATCH", help="The batch's id.")],
    cancel: Annotated[bool, typer.Option("--cancel", help="Cancel what has not ended.")] = False,
    wait: Wait = False,
    download: Download = None,
    as_json: AsJson = False,
) -> None:
    """Print how far a batch is; or cancel it, or wait for it.

    The exit code is 0 if all jobs succeeded, 1 if one failed or was cancelled, 3 if they have not
    ended yet, and 4 if the batch is not known.
    """
    with answering():
        batch = _restored(batch_id)
        progress = batch.progress()
        if cancel:
            batch.cancel()
    if wait or download is not None:
        follow(batch, download, is_one=False, as_json=as_json)
        return
    if as_json:
        states = dict(progress.states)
        print_json({"batch_id": batch.id, "value": round(progress.value, 4), "states": states})
    else:
        table = Table(id_column("batch", [batch.id]), "jobs", "done")
        table.add_row(batch.id, counts(progress), f"{progress.value:.0%}")
        print_table(table)
    if cancel:
        typer.echo(f"{progress.total - progress.ended} jobs are being cancelled", err=True)
    elif progress.ended < progress.total:
        raise typer.Exit(ExitCode.NOT_FINISHED)
    elif progress.failed:
        raise typer.Exit(ExitCode.FAILED)


def _restored(batch_id: str) -> Batch:
    try:
        return Batch.restore(batch_id)
    except InvalidRequestError as error:
        raise UnknownError(error.message) from error
