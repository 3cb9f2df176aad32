"""The commands of `comfyfleet comfy`, each where it belongs."""

import typer

from cli.comfy.files import view
from cli.comfy.history import show_history
from cli.comfy.nodes import show_nodes
from cli.comfy.prompts import clear, delete, interrupt, show_queue
from cli.comfy.run import run
from cli.comfy.server import free, show_models, show_stats

comfy = typer.Typer(
    help="One ComfyUI server, without a broker: look at it, tell it, run a workflow on it.",
    no_args_is_help=True,
    add_completion=False,
)

comfy.command("stats")(show_stats)
comfy.command("queue")(show_queue)
comfy.command("history")(show_history)
comfy.command("models")(show_models)
comfy.command("nodes")(show_nodes)
comfy.command("interrupt")(interrupt)
comfy.command("free")(free)
comfy.command("clear")(clear)
comfy.command("delete")(delete)
comfy.command("view")(view)
comfy.command("run")(run)
