"""Celery's worker with our settings check, our name and our clients."""

import logging
import sys
from typing import TYPE_CHECKING, Any, NoReturn

import click
from celery import signals
from celery.apps.worker import Worker as CeleryWorker
from click.core import ParameterSource

from settings import Settings, SettingsError, load
from tasks.app import TASK_NAME
from workers.bootstrap import assemble, node_name
from workers.broker.progress import ProgressWriter
from workers.broker.results import PROGRESS
from workers.broker.revocation import follow_revocations
from workers.health.pulse import Pulse
from workers.lifecycle.memory import keep_for_good, keep_little

if TYPE_CHECKING:
    from workers.lifecycle.watching import Watching

# Seconds that a server has at the start to say what it can do.
_SURVEY_SECONDS = 3.0


class Worker(CeleryWorker):  # type: ignore[misc]  # celery has no types for it
    """The worker that `celery -A workers worker` starts."""

    def __init__(self, app: Any = None, **options: Any) -> None:
        """Check what only workers need, and make the worker; nothing is connected yet."""
        try:
            settings = load().require_worker()
        except SettingsError as error:
            leave(error)
        if not _on_command_line("hostname"):
            options["hostname"] = node_name(settings)
        if not _on_command_line("loglevel"):
            options["loglevel"] = settings.log_level
        # What workers must know of each other stands in the ledger. These two only delay the start
        # by a second, and make workers talk the more the more they are.
        options |= {"without_mingle": True, "without_gossip": True}
        super().__init__(app, settings=settings, **options)

    def on_before_init(self, *, settings: Settings, **options: Any) -> None:
        """Celery's hook: make the clients and give the task its executor."""
        super().on_before_init(**options)
        keep_little()
        # At DEBUG these write whole requests, with signatures, passwords and input files.
        for name in ("botocore", "celery.pool"):
            logging.getLogger(name).setLevel(logging.INFO)
        self._watching = _watching(settings)
        observers = [self._watching.observe] if self._watching else []
        self._parts = assemble(settings, self.hostname, *observers)
        # Where the consumer's steps look for them.
        self.pulse = Pulse()
        self.circuit = self._parts.circuit
        self.keeper = self._parts.keeper
        self.router = self._parts.router
        self._progress = ProgressWriter(
            lambda job_id, meta: self.app.backend.store_result(job_id, meta, PROGRESS)
        )
        task = self.app.tasks[TASK_NAME]
        task.custody, task.progress = self._parts.custody, self._progress
        task.observe = self._parts.observe

    def install_platform_tweaks(self, worker: Any) -> None:
        """Celery's hook for signal handlers: ours, so that all of them give jobs back."""
        super().install_platform_tweaks(worker)
        self._parts.leaving.install(worker)

    def on_start(self) -> None:
        """Celery's hook, before the first message: listen to ComfyUI."""
        super().on_start()
        self._parts.start()
        self._progress.start()
        if self._watching:
            self._watching.start(self, self._parts, self.pulse)
        follow_revocations(self._parts.custody)
        # Whoever sees this worker ready may count on the others knowing what its server can do.
        self._parts.survey.wait_begun(_SURVEY_SECONDS)
        keep_for_good()
        # Sent when the last job has ended; the signal keeps only a weak reference by default.
        signals.worker_shutdown.connect(self._on_shutdown, weak=False)

    def _on_shutdown(self, **_: Any) -> None:
        self._progress.stop()
        self._parts.close()
        if self._watching:
            self._watching.close()


def _watching(settings: Settings) -> "Watching | None":
    """What tells how this worker is, if that is wanted; its port is bound."""
    if settings.metrics_port is None:
        return None
    # Nobody else should pay for it.
    from workers.lifecycle.watching import Watching  # noqa: PLC0415

    try:
        return Watching(settings, settings.metrics_port)
    except SettingsError as error:
        leave(error)


def _on_command_line(option: str) -> bool:
    context = click.get_current_context(silent=True)
    return context is not None and (
        context.get_parameter_source(option) is ParameterSource.COMMANDLINE
    )


def leave(error: SettingsError) -> NoReturn:
    """End the process as one whose settings are wrong: the reason on stderr, exit code 2."""
    print(f"comfyfleet: wrong settings\n{error}", file=sys.stderr)  # noqa: T201
    raise SystemExit(2)
