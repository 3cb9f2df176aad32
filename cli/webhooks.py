"""`comfyfleet webhooks`: what receivers have not been told."""

from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from cli.errors import CommandError
from cli.fleet import open_ledger
from cli.output import AsJson, cell, id_column, print_json, print_table
from tasks.request import label
from workers.ledger.outbox import Outbox, State, Waiting

webhooks = typer.Typer(
    help="Webhooks that wait to be sent, or were given up.",
    no_args_is_help=True,
    add_completion=False,
)

IdUnlessAll = Annotated[
    str | None,
    typer.Argument(metavar="ID", help="The webhook's id; or --all.", show_default=False),
]
All = Annotated[bool, typer.Option("--all", help="Every one that was given up.")]

_GIVEN_UP: State = "given up"


@webhooks.command("list")
def show_list(as_json: AsJson = False) -> None:
    """List those that wait to be sent, a thousand at most, and those that were given up."""
    with open_ledger() as ledger:
        found = ledger.outbox.all()
    if as_json:
        print_json([{**asdict(one), "url": label(one.url)} for one in found])
        return
    if not found:
        typer.echo("No webhook waits, and none was given up.")
        return
    table = Table(
        id_column("id", [one.id for one in found]),
        *("job", "event", "receiver", "state", "since or due", "tries", "last error"),
    )
    for one in found:
        table.add_row(*_cells(one))
    print_table(table)


@webhooks.command()
def retry(webhook: IdUnlessAll = None, every: All = False, as_json: AsJson = False) -> None:
    """Send one now, as if it were new, also one that was given up."""
    with open_ledger() as ledger:
        for one in _chosen(ledger.outbox, webhook, every):
            _require(ledger.outbox.retry(one), one)
            _tell(one, as_json)


@webhooks.command()
def discard(webhook: IdUnlessAll = None, every: All = False, as_json: AsJson = False) -> None:
    """Forget one: it is not sent any more."""
    with open_ledger() as ledger:
        for one in _chosen(ledger.outbox, webhook, every):
            _require(ledger.outbox.discard(one), one)
            _tell(one, as_json)


def _chosen(outbox: Outbox, webhook: str | None, every: bool) -> Iterable[str]:
    if (webhook is not None) == every:
        raise typer.BadParameter("name a webhook, or all that were given up with --all")
    if webhook is not None:
        return [webhook]
    return [one.id for one in outbox.all() if one.state == _GIVEN_UP]


def _require(known: bool, webhook: str) -> None:
    if not known:
        raise CommandError(
            f"no webhook {cell(webhook)} waits or was given up; comfyfleet webhooks list shows "
            "which are"
        )


def _tell(webhook: str, as_json: bool) -> None:
    if as_json:
        print_json({"id": webhook}, indent=None)
    else:
        typer.echo(webhook)


def _cells(one: Waiting) -> list[Text]:
    since = datetime.fromtimestamp(one.since, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    texts = (one.id, one.job_id, one.event, label(one.url), one.state, since, str(one.tries))
    return [cell(text) for text in (*texts, one.error)]
