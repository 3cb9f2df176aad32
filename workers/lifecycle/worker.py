"""Celery's worker with our settings check, our name and our clients."""

import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click
from celery import signals
from celery.apps.worker import Worker as CeleryWorker
from click.core import ParameterSource

from settings import Settings, SettingsError
from tasks.app import TASK_NAME
from tasks.errors import JobError
from workers.bootstrap.parts import assemble
from workers.bootstrap.pinning import node_name
from workers.broker.progress import ProgressWriter
from workers.broker.results import PROGRESS
from workers.broker.revocation import follow_revocations
from workers.checks.comfyui import judge_version
from workers.checks.finding import Status
from workers.checks.start import in_words
from workers.checks.storage import judge_configuration
from workers.health.pulse import Pulse
from workers.lifecycle.memory import keep_for_good, keep_little
from workers.lifecycle.own_server import OwnServer
from workers.lifecycle.process import begin_anew
from workers.lifecycle.starting import leave, look_around, worker_settings
from workers.logs.setup import write_logs_as

if TYPE_CHECKING:
    from workers.lifecycle.watching import Watching

logger = logging.getLogger(__name__)

# Seconds that a server has at the start to say what it can do.
_SURVEY_SECONDS = 3.0


class Worker(CeleryWorker):  # type: ignore[misc]  # celery has no types for it
    """The worker that `celery -A workers worker` starts."""

    def __init__(self, app: Any = None, **options: Any) -> None:
        """Check what only workers need, take a server, which may take long, and make the worker.

        A worker that waits for a server is nobody yet: it has no name and no connection to the
        broker.
        """
        settings = worker_settings()
        if not _on_command_line("loglevel"):
            options["loglevel"] = settings.log_level
        write_logs_as(settings.log_format)
        # Before a server is waited for, which takes the same Redis.
        self._hints = look_around(settings)
        name = options.get("hostname") if _on_command_line("hostname") else None
        self._watching = _watching(settings)

        def begin_to_wait() -> None:
            _begin_to_log(app or self.app, options)
            self._tell_hints()

        self._server = OwnServer(settings, name, begin_to_wait)
        if self._watching:
            self._watching.wait(self._server.missing)
        try:
            settings = self._server.take()
            options["hostname"] = name or node_name(settings)
            # What workers must know of each other stands in the ledger. These two only delay the
            # start by a second, and make workers talk the more the more they are.
            options |= {"without_mingle": True, "without_gossip": True}
            super().__init__(app, settings=settings, **options)
        except BaseException:
            self._server.let_go()
            raise

    def start(self) -> None:
        """Celery's way to run: returns when the worker has left, unless it begins anew."""
        try:
            super().start()
        finally:
            self._server.let_go()
        if self._parts.taking.leaving.anew:
            begin_anew()

    def on_before_init(self, *, settings: Settings, **options: Any) -> None:
        """Celery's hook: make the clients and give the task its executor."""
        super().on_before_init(**options)
        if settings.log_format == "json":
            # The banner is for people.
            self.quiet = True
        keep_little()
        # At DEBUG these write whole requests, with signatures, passwords and input files.
        for name in ("botocore", "celery.pool"):
            logging.getLogger(name).setLevel(logging.INFO)
        observers = [self._watching.observe] if self._watching else []
        try:
            self._parts = assemble(
                settings,
                self.hostname,
                *observers,
                pinned=self._server.pinned,
                is_another_free=self._server.is_another_free,
            )
        except JobError as error:
            leave(SettingsError(in_words(judge_configuration(error))))
        # Where the consumer's steps look for them.
        self.pulse = Pulse()
        self.circuits = (self._parts.outside.circuit, self._parts.outside.store_watch)
        self.ledger_url = settings.ledger_url
        self.keeper = self._parts.taking.keeper
        self.router = self._parts.taking.router
        self._progress = ProgressWriter(
            lambda job_id, meta: self.app.backend.store_result(job_id, meta, PROGRESS)
        )
        task = self.app.tasks[TASK_NAME]
        task.custody, task.progress = self._parts.running.custody, self._progress
        task.observe = self._parts.watchers.observe
        task.message_secrets = tuple(one.get_secret_value() for one in settings.message_secret)

    def install_platform_tweaks(self, worker: Any) -> None:
        """Celery's hook for signal handlers: ours, so that all of them give jobs back."""
        super().install_platform_tweaks(worker)
        self._parts.taking.leaving.install(worker)

    def on_start(self) -> None:
        """Celery's hook, before the first message: listen to ComfyUI."""
        super().on_start()
        # From here on signals are Celery's to tell.
        self._server.check_end()
        self._tell_hints()
        self._parts.start()
        self._progress.start()
        if self._watching:
            self._watching.start(self, self._parts, self.pulse)
        follow_revocations(self._parts.running.custody)
        # Whoever sees this worker ready may count on the others knowing what its server can do.
        deadline = time.monotonic() + _SURVEY_SECONDS
        self._parts.taking.survey.wait_begun(_SURVEY_SECONDS)
        self._hint_at_version()
        # And nobody takes a job for a bucket that is not there.
        self._parts.outside.store_watch.wait_begun(deadline - time.monotonic())
        keep_for_good()
        # Sent when the last job has ended; the signal keeps only a weak reference by default.
        signals.worker_shutdown.connect(self._on_shutdown, weak=False)

    def _tell_hints(self) -> None:
        for hint in self._hints:
            logger.warning(in_words(hint))
        self._hints = []

    def _hint_at_version(self) -> None:
        stats = self._parts.taking.survey.stats
        if stats is not None:
            judged = judge_version(stats, self._parts.outside.comfyui.base_url)
            if judged.status is not Status.OK:
                logger.warning(in_words(judged))

    def _on_shutdown(self, **_: Any) -> None:
        self._progress.stop()
        # What these would say on leaving is another worker's to say of its server.
        if not self._server.is_lost:
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


def _begin_to_log(app: Any, options: Mapping[str, Any]) -> None:
    """What Celery does a moment before the first message, for a worker that waits until then."""
    colorize = False if options.get("no_color") else None
    app.log.setup(options["loglevel"], options.get("logfile"), colorize=colorize)
