"""Celery's worker with our settings check, our name and our clients."""

import logging
import sys
import time
from typing import Any, NoReturn

import click
from celery import signals
from celery.apps.worker import Worker as CeleryWorker
from click.core import ParameterSource

from settings import Settings, SettingsError, load
from tasks.app import TASK_NAME
from tasks.errors import JobError
from workers.bootstrap import assemble, node_name
from workers.broker.progress import ProgressWriter
from workers.broker.results import PROGRESS
from workers.broker.revocation import follow_revocations
from workers.checks.comfyui import judge_version
from workers.checks.finding import Status
from workers.checks.start import in_words, look_at_host, look_at_servers
from workers.lifecycle.memory import keep_for_good, keep_little

logger = logging.getLogger(__name__)

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
        self._hints = [*look_at_servers(settings), *look_at_host(settings)]
        if hopeless := [one for one in self._hints if not one.heals]:
            leave(SettingsError("\n".join(map(in_words, hopeless))), "no worker can work like this")
        try:
            self._parts = assemble(settings, self.hostname)
        except JobError as error:
            leave(SettingsError(error.message))
        # Where the gate and the sharing look for them.
        self.circuits = (self._parts.circuit, self._parts.store_watch)
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
        for hint in self._hints:
            logger.warning(in_words(hint))
        self._parts.start()
        self._progress.start()
        follow_revocations(self._parts.custody)
        # Whoever sees this worker ready may count on the others knowing what its server can do.
        deadline = time.monotonic() + _SURVEY_SECONDS
        self._parts.survey.wait_begun(_SURVEY_SECONDS)
        self._hint_at_version()
        # And nobody takes a job for a bucket that is not there.
        self._parts.store_watch.wait_begun(deadline - time.monotonic())
        keep_for_good()
        # Sent when the last job has ended; the signal keeps only a weak reference by default.
        signals.worker_shutdown.connect(self._on_shutdown, weak=False)

    def _hint_at_version(self) -> None:
        stats = self._parts.survey.stats
        if stats is not None:
            judged = judge_version(stats, self._parts.comfyui.base_url)
            if judged.status is not Status.OK:
                logger.warning(in_words(judged))

    def _on_shutdown(self, **_: Any) -> None:
        self._progress.stop()
        self._parts.close()


def _on_command_line(option: str) -> bool:
    context = click.get_current_context(silent=True)
    return context is not None and (
        context.get_parameter_source(option) is ParameterSource.COMMANDLINE
    )


def leave(error: SettingsError, what: str = "wrong settings") -> NoReturn:
    """End the process as one that would never work: the reason on stderr, exit code 2."""
    print(f"comfyfleet: {what}\n{error}", file=sys.stderr)  # noqa: T201
    raise SystemExit(2)
