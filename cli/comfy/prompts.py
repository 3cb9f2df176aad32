"""`comfyfleet comfy queue | interrupt | clear | delete`: prompts that run, wait or have ended."""

from enum import StrEnum
from typing import Annotated

import typer
from rich.table import Table

from cli.comfy.client import Url, open_server
from cli.errors import CommandError
from cli.output import AsJson, cell, id_column, print_json, print_table
from tasks.request import did_you_mean, shown
from workers.comfyui import ComfyUI

Prompt = Annotated[
    str,
    typer.Argument(metavar="ID", help="As queue and history print it.", show_default=False),
]
RunningPrompt = Annotated[
    str | None,
    typer.Argument(metavar="[ID]", help="If this prompt is what runs.", show_default=False),
]


_PAGE = 100


class Clearable(StrEnum):
    """What `clear` forgets."""

    QUEUE = "queue"
    HISTORY = "history"


def show_queue(url: Url = None, as_json: AsJson = False) -> None:
    """List the prompts that run and those that wait, the next one first."""
    with open_server(url) as server:
        running, pending = server.queued_prompts()
    prompts = [*(("running", one) for one in running), *(("waiting", one) for one in pending)]
    if as_json:
        print_json(
            [
                {
                    "state": state,
                    "prompt_id": one.prompt_id,
                    "number": one.number,
                    "client_id": one.client_id,
                    "workflow": one.workflow,
                }
                for state, one in prompts
            ]
        )
        return
    if not prompts:
        typer.echo("Nothing runs, nothing waits.")
        return
    table = Table(
        id_column("prompt", [one.prompt_id for _, one in prompts]),
        "state",
        "number",
        "nodes",
        "client",
    )
    for state, one in prompts:
        nodes = str(len(one.workflow))
        number = cell(str(one.number))
        table.add_row(cell(one.prompt_id), state, number, nodes, cell(one.client_id))
    print_table(table)


def interrupt(prompt: RunningPrompt = None, url: Url = None, as_json: AsJson = False) -> None:
    """Stop what runs, whoever queued it; with an id only that prompt."""
    with open_server(url) as server:
        queue = server.queue()
        if prompt is None:
            stopped = queue.running
        elif prompt in queue.running:
            stopped = (prompt,)
        elif prompt in queue.pending:
            raise CommandError(
                f"prompt {shown(prompt)} waits and does not run yet; "
                "comfyfleet comfy delete takes it out of the queue"
            )
        else:
            hint = did_you_mean(prompt, queue.running)
            raise CommandError(
                f"prompt {shown(prompt)} does not run on ComfyUI at {server.base_url}{hint}"
            )
        for one in stopped:
            # By its id, so that none is hit which has begun meanwhile.
            server.interrupt(one)
    if as_json:
        print_json({"interrupted": stopped})
    elif not stopped:
        typer.echo("Nothing runs.")
    else:
        for one in stopped:
            typer.echo(f"Prompt {cell(one)} stops at its next step.")


def clear(
    what: Annotated[Clearable, typer.Argument(help="What to forget.")] = Clearable.QUEUE,
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Take all waiting prompts out of the queue, or forget all finished ones; files stay."""
    with open_server(url) as server:
        cleared = _clear_queue(server) if what is Clearable.QUEUE else _clear_history(server)
    if as_json:
        print_json({"cleared": what, "prompts": cleared})
        return
    kind = "waiting" if what is Clearable.QUEUE else "finished"
    typer.echo(f"{len(cleared)} {kind} {'prompt' if len(cleared) == 1 else 'prompts'} cleared.")


def delete(prompt: Prompt, url: Url = None, as_json: AsJson = False) -> None:
    """Take a waiting prompt out of the queue, or forget a finished one; its files stay."""
    with open_server(url) as server:
        queue = server.queue()
        if prompt in queue.running:
            raise CommandError(
                f"prompt {shown(prompt)} runs; comfyfleet comfy interrupt {cell(prompt)} stops it"
            )
        if prompt in queue.pending:
            where = "queue"
            server.delete_from_queue([prompt])
            if prompt in server.queue().running:
                raise CommandError(f"prompt {shown(prompt)} began to run before it was deleted")
        elif server.history(prompt) is not None:
            where = "history"
            server.delete_history([prompt])
        else:
            raise unknown_prompt(server, prompt)
    if as_json:
        print_json({"deleted": prompt, "from": where})
    else:
        typer.echo(f"Prompt {cell(prompt)} is no longer in the {where}.")


def unknown_prompt(server: ComfyUI, prompt: str) -> CommandError:
    """The error for an id that a server does not know."""
    queue = server.queue()
    newest = server.histories(max_items=_PAGE)
    hint = did_you_mean(prompt, [*queue.running, *queue.pending, *newest])
    return CommandError(f"ComfyUI at {server.base_url} knows no prompt {shown(prompt)}{hint}")


def _clear_queue(server: ComfyUI) -> list[str]:
    """The prompts that waited and do not any more, for no other reason than this."""
    waited = server.queue().pending
    server.clear_queue()
    left = server.queue()
    return [one for one in waited if one not in left]


def _clear_history(server: ComfyUI) -> list[str]:
    finished: dict[str, None] = {}
    # By pages: all of it may be more than is read of one answer.
    while new := server.histories(_PAGE, len(finished)).keys() - finished.keys():
        finished |= dict.fromkeys(new)
    server.clear_history()
    return list(finished)
