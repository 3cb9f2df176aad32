"""A prompt on its server: submitted, watched, and waited for until it has ended."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, Protocol

from tasks.errors import ComfyUIUnavailableError, JobError, PromptLostError, TransientError
from tasks.workflow import Workflow
from tasks.workflow_form import is_export
from workers import timeline
from workers.comfyui import ComfyUI, Notifications
from workers.comfyui.history import failure_in
from workers.comfyui.model import PromptState
from workers.comfyui.notifications import OnOutput, Subscription
from workers.execution.control import Control, unshared
from workers.execution.diagnosis import Diagnosis
from workers.execution.job import Job, Start
from workers.execution.keeper import Keeper
from workers.execution.observed import nodes_executed
from workers.execution.run import EXECUTED, STAGED, Run
from workers.execution.stopping import GIVEN_UP, Stopping, spared
from workers.execution.waiting import Patience, await_entry
from workers.observing import Observe, unobserved

# Seconds until a websocket is cut whose server does not answer any more.
_CUT_SECONDS = 1.0


class Breaker(Protocol):
    """What knows whether the server can be used."""

    def suspect(self) -> None:
        """Have a look at the server: something is wrong with it."""

    def refuse(self, job_id: str) -> bool:
        """Note that the server answers and has not taken a job's prompt; whether it takes none."""

    def accept(self) -> None:
        """Note that the server has taken a prompt."""


class Watch(NamedTuple):
    """What tells of a prompt: its server, a websocket to that, and what is heard there."""

    server: ComfyUI
    notifications: Notifications
    subscription: Subscription


class Prompts:
    """The prompts of this worker's jobs, as a rule on its own server. Thread-safe."""

    def __init__(
        self,
        *,
        comfyui: ComfyUI,
        notifications: Notifications,
        listen_as: Callable[[str], Notifications],
        server_at: Callable[[str], ComfyUI],
        breaker: Breaker,
        keeper: Keeper,
        stopping: Stopping,
        diagnosis: Diagnosis,
        stall_seconds: float,
        confirm_server: Callable[[Control], None] = unshared,
        observe: Observe = unobserved,
    ) -> None:
        """Take the clients; they stay their maker's to close.

        Args:
            comfyui: the server to run on.
            notifications: its websocket.
            listen_as: makes one more websocket, under another client id.
            server_at: makes a client of another server, by its base URL.
            breaker: is told of trouble with the server.
            keeper: of this worker's leases.
            stopping: takes prompts off the server.
            diagnosis: is told what executes.
            stall_seconds: seconds without a sign of life after which a prompt is stopped.
            confirm_server: raises ServerLost if another worker drives the server, and waits until
                that is known.
            observe: is told which nodes have executed.
        """
        self._comfyui = comfyui
        self._notifications = notifications
        self._listen_as = listen_as
        self._server_at = server_at
        self._breaker = breaker
        self._keeper = keeper
        self._stopping = stopping
        self._diagnosis = diagnosis
        self._stall_seconds = stall_seconds
        self._confirm_server = confirm_server
        self._observe = observe

    @contextmanager
    def server(self, job: Job) -> Iterator[ComfyUI]:
        """A client of the server that has, or gets, the prompt."""
        if job.start is Start.COLLECT:
            with self._server_at(job.instance) as server:
                yield server
        else:
            yield self._comfyui

    @contextmanager
    def watching(self, run: Run, server: ComfyUI, on_output: OnOutput) -> Iterator[Watch]:
        """Hear of the prompt; of an adopted one as the client that submitted it."""
        job = run.job
        hear = on_output, partial(self._keeper.execute, run.lease)
        if job.start is Start.ADOPT and job.client_id != self._notifications.client_id:
            notifications = self._listen_as(job.client_id)
            with notifications.subscribed(job.prompt_id, *hear, adopted=True) as subscription:
                notifications.start()
                try:
                    yield Watch(server, notifications, subscription)
                finally:
                    notifications.stop()
        else:
            adopted = job.start is not Start.SUBMIT
            with self._notifications.subscribed(
                job.prompt_id, *hear, adopted=adopted
            ) as subscription:
                yield Watch(server, self._notifications, subscription)

    def submit(self, run: Run, workflow: Workflow) -> None:
        """Queue the prompt.

        Raises:
            Spared: it had better be queued elsewhere.
            JobError: the server has not taken it, or nobody knows.
            Exception: whatever reason the lease's control gives to end.
        """
        job = run.job
        # Placing its inputs may have taken long.
        self._keeper.confirm(run.lease)
        self._confirm_server(run.lease.control)
        if run.lease.control.wanted_elsewhere:
            raise spared(run.lease)
        was_there, began = self._notifications.connected, time.monotonic()
        try:
            given = job.request.workflow
            self._comfyui.submit(
                workflow,
                job.prompt_id,
                self._notifications.client_id,
                export=given if is_export(given) else None,
            )
        except ComfyUIUnavailableError:
            # It may have died of the prompt just now.
            run.submitted_at = began if was_there else None
            # The answer was lost, the prompt perhaps not: posted again it would run twice.
            try:
                state = self._comfyui.state_of(job.prompt_id)
            except JobError:
                # What the websocket has to say of it comes a moment later.
                self._notifications.wait_cut(_CUT_SECONDS)
                raise
            if state is PromptState.UNKNOWN:
                run.submitted_at = None
                run.refused = self._breaker.refuse(job.id)
                raise
        self._breaker.accept()
        timeline.mark(job.id, "posted")

    def wait(self, run: Run, workflow: Workflow, watch: Watch) -> Mapping[str, Any]:
        """The history entry of the prompt once it has succeeded.

        Raises:
            Spared: it was taken out of the queue for a server elsewhere.
            JobError: it has failed, or is given up.
            Exception: whatever reason the lease's control gives to end.
        """
        job, subscription = run.job, watch.subscription
        try:
            with run.lease.control.waking(subscription.look):
                entry = await_entry(
                    job.prompt_id,
                    comfyui=watch.server,
                    notifications=watch.notifications,
                    subscription=subscription,
                    patience=self._patience(run),
                    control=run.lease.control,
                    on_tick=partial(self._tick, run, workflow, subscription),
                    on_trouble=_nothing if job.start is Start.COLLECT else self._breaker.suspect,
                    adopted=job.start is not Start.SUBMIT,
                )
        except GIVEN_UP as reason:
            self._stopping.give_up(run, reason)
            raise
        except TransientError as error:
            wanted = run.lease.control.wanted_elsewhere and not run.executing
            if wanted and isinstance(error, PromptLostError):
                # It was taken out of the queue, and the answer got lost.
                raise spared(run.lease) from None
            run.executing = run.executing or subscription.progress.started
            raise
        finally:
            self._observe(nodes_executed(job, workflow, subscription.progress))
        self._keeper.store(run.lease, sum(subscription.progress.node_seconds.values()) or None)
        timeline.mark(job.id, "seen")
        # From here on no server can die of it.
        run.submitted_at, run.executing = None, False
        self._diagnosis.see_ended()
        if (failure := failure_in(entry, workflow)) is not None:
            raise failure
        run.rendered = True
        return entry

    def _patience(self, run: Run) -> Patience:
        return Patience(
            seconds=run.job.request.timeout_seconds,
            # When an adopted prompt began to execute is not known.
            since=None if run.job.start is Start.SUBMIT else run.began - run.job.age,
            stall=self._stall_seconds,
        )

    def _tick(
        self, run: Run, workflow: Workflow, subscription: Subscription, running: bool
    ) -> None:
        """Tell how far it is, and give it away if it is wanted elsewhere."""
        progress = subscription.progress
        run.executing = running or progress.started
        if run.executing:
            self._keeper.execute(run.lease)
            self._diagnosis.see_executing(run.job.id)
        elif run.lease.control.wanted_elsewhere and run.job.start is not Start.COLLECT:
            self._stopping.spare(run)
        node = workflow.get(progress.node_id or "", {})
        run.tell(
            "executing" if run.executing else "queued",
            STAGED + (EXECUTED - STAGED) * progress.share(workflow),
            node_id=progress.node_id,
            class_type=node.get("class_type"),
            step=progress.step,
            steps=progress.steps,
        )


def _nothing() -> None:
    pass
