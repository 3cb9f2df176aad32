"""The commands of `comfyfleet`, each loaded when it is called: it needs much that others do not."""

from importlib import import_module
from typing import Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup


class Lazy(NamedTuple):
    """A command, or a group of some, that is not loaded yet.

    Attributes:
        name: as it is typed.
        place: module and name of its function, or of its own app.
        help: what its help begins with.
        panel: under which heading it stands.
    """

    name: str
    place: str
    help: str
    panel: str

    def loaded(self) -> Any:
        """The command itself."""
        module, _, attribute = self.place.partition(":")
        found = getattr(import_module(module), attribute)
        if isinstance(found, typer.Typer):
            group: Any = typer.main.get_command(found)
            group.name = self.name
            return group
        alone = typer.Typer(add_completion=False)
        alone.command(self.name)(found)
        return typer.main.get_command(alone)

    def announced(self) -> Any:
        """Its line in the list of commands."""
        return TyperCommand(self.name, help=self.help, rich_help_panel=self.panel)


_JOBS, _FLEET = "Jobs", "The fleet"
_WORKFLOWS, _HERE = "Workflows and servers", "This machine"

COMMANDS = {
    one.name: one
    for one in (
        Lazy(
            *("submit", "cli.submit:submit"),
            "Enqueue a workflow, once or for each row of a table and each mix of a sweep.",
            _JOBS,
        ),
        Lazy("status", "cli.status:status", "Print how far a job is, or what became of it.", _JOBS),
        Lazy(
            *("result", "cli.result:result"),
            "Print a job's result, even after it has expired; or how far the job is.",
            _JOBS,
        ),
        Lazy(
            *("show", "cli.show:show_job"),
            "Print a job's story: what happened to it when and where, its attempts and files.",
            _JOBS,
        ),
        Lazy(
            "cancel", "cli.cancel:cancel", "Cancel jobs that wait, and stop those that run.", _JOBS
        ),
        Lazy("jobs", "cli.jobs:jobs", "List the latest jobs, newest first.", _JOBS),
        Lazy(
            *("batch", "cli.batch:show_batch"),
            "Print how far a batch is; or cancel it, or wait for it.",
            _JOBS,
        ),
        Lazy(
            *("dead", "cli.dead:dead"),
            "Jobs that were put aside because they take down whoever tries them.",
            _JOBS,
        ),
        Lazy(
            *("webhooks", "cli.webhooks:webhooks"),
            "Webhooks that wait to be sent, or were given up.",
            _JOBS,
        ),
        Lazy(
            *("workers", "cli.workers:workers"),
            "List the workers of the fleet, and what each of them does.",
            _FLEET,
        ),
        Lazy("queue", "cli.queue:queue", "Print how many jobs wait, and for how long.", _FLEET),
        Lazy("top", "cli.top:top", "Watch the fleet: workers, queue, rates and failures.", _FLEET),
        Lazy(
            *("check", "cli.check:check"),
            "Say for each live server of the fleet whether it can run a workflow, or what it "
            "lacks.",
            _WORKFLOWS,
        ),
        Lazy(
            *("convert", "cli.convert:convert_command"),
            "Print a workflow that ComfyUI's UI has saved, or embedded in an image, in API format.",
            _WORKFLOWS,
        ),
        Lazy(
            *("comfy", "cli.comfy:comfy"),
            "One ComfyUI server, without a broker: look at it, tell it, run a workflow on it.",
            _WORKFLOWS,
        ),
        Lazy(
            *("settings", "cli.effective:show_settings"),
            "Print the effective settings, secrets masked.",
            _HERE,
        ),
        Lazy(
            *("doctor", "cli.doctor:doctor"),
            "Try everything that a job needs, in order, and say how to mend what fails.",
            _HERE,
        ),
        Lazy(
            *("worker", "cli.worker:work"),
            "Start a worker: `celery -A workers worker`, once the settings are checked.",
            _HERE,
        ),
        Lazy(
            *("sandbox", "cli.sandbox:sandbox"),
            "Start Valkey, SeaweedFS and stand-in ComfyUI servers; print the environment to "
            "export.",
            _HERE,
        ),
        Lazy(
            *("demo", "cli.demo:demo"),
            "Start the stack and a worker, render one image and a batch of three, save them.",
            _HERE,
        ),
    )
}


class _Group(TyperGroup):
    """Lists what is not loaded, and loads what is called."""

    calling = False

    def __init__(self, **attrs: Any) -> None:
        super().__init__(**attrs)
        self.commands = {name: one.announced() for name, one in COMMANDS.items()}

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if self.calling and cmd_name in COMMANDS:
            return COMMANDS[cmd_name].loaded()
        return super().get_command(ctx, cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        self.calling = True
        try:
            return super().resolve_command(ctx, args)
        finally:
            self.calling = False


app = typer.Typer(
    name="comfyfleet",
    help="A fleet of ComfyUI servers behind a Celery queue.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    cls=_Group,
)


@app.callback()
def _comfyfleet() -> None:
    """A fleet of ComfyUI servers behind a Celery queue."""
