"""The spine: one attempt at a job from end to end."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

from tasks.errors import (
    ComfyUIUnavailableError,
    JobCancelledError,
    JobError,
    PromptLostError,
    TransientError,
)
from tasks.request import JobRequest
from tasks.result import JobResult, ObjectRef, Output, Progress, Timings
from tasks.workflow import Workflow
from tasks.workflow_form import is_export
from workers import timeline
from workers.comfyui import ComfyUI, Notifications
from workers.comfyui.history import (
    executed_workflow,
    failure_in,
    shown_values,
)
from workers.comfyui.model import PromptState
from workers.comfyui.notifications import OnOutput, Subscription
from workers.execution.control import Control, unshared
from workers.execution.diagnosis import Diagnosis
from workers.execution.job import Job, Start
from workers.execution.keeper import Keeper, Lease
from workers.execution.manifests import Manifests, read_manifest
from workers.execution.observed import nodes_executed
from workers.execution.patience import patiently, soon
from workers.execution.removal import Removal
from workers.execution.run import EXECUTED, STAGED, Run
from workers.execution.staging import Staging
from workers.execution.stopping import GIVEN_UP, Stopping, spared
from workers.execution.storing import Storing
from workers.execution.waiting import Patience, await_entry
from workers.nodes.params import seeds_in
from workers.observing import Observe, StageEnded, unobserved
from workers.observing.events import Stage
from workers.storage import ObjectStore
from workers.storage.keys import job_folder, manifest_key

logger = logging.getLogger(__name__)

Report = Callable[[Progress], None]

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


class Executor:
    """Runs jobs on one ComfyUI server and stores what they make. Thread-safe."""

    def __init__(
        self,
        *,
        staging: Staging,
        storing: Storing,
        diagnosis: Diagnosis,
        stopping: Stopping,
        comfyui: ComfyUI,
        notifications: Notifications,
        listen_as: Callable[[str], Notifications],
        server_at: Callable[[str], ComfyUI],
        breaker: Breaker,
        keeper: Keeper,
        store: ObjectStore,
        manifests: Manifests,
        removal: Removal,
        worker: str,
        prefix: str,
        stall_seconds: float,
        s3_patience_seconds: float,
        confirm_server: Callable[[Control], None] = unshared,
        observe: Observe = unobserved,
    ) -> None:
        """Take the clients; they stay their maker's to close.

        Args:
            staging: makes workflows ready.
            storing: stores what they make.
            diagnosis: tells what failures say.
            stopping: takes prompts off the server.
            comfyui: the server to run on.
            notifications: its websocket.
            listen_as: makes one more websocket, under another client id.
            server_at: makes a client of another server, by its base URL.
            breaker: is told of trouble with the server.
            keeper: of this worker's leases.
            store: where results are.
            manifests: commits.
            removal: takes back what cancelled jobs have stored.
            worker: this worker's name, for results.
            prefix: of every object key.
            stall_seconds: seconds without a sign of life after which a prompt is stopped.
            s3_patience_seconds: seconds for which a commit is tried again.
            confirm_server: raises ServerLost if another worker drives the server, and waits until
                that is known.
            observe: is told of stages.
        """
        self._staging = staging
        self._storing = storing
        self._diagnosis = diagnosis
        self._stopping = stopping
        self._comfyui = comfyui
        self._notifications = notifications
        self._listen_as = listen_as
        self._server_at = server_at
        self._breaker = breaker
        self._confirm_server = confirm_server
        self._keeper = keeper
        self._store = store
        self._manifests = manifests
        self._removal = removal
        self._worker = worker
        self._prefix = prefix
        self._stall_seconds = stall_seconds
        self._s3_patience_seconds = s3_patience_seconds
        self._observe = observe

    def run(self, job: Job, lease: Lease, report: Report) -> JobResult:
        """Run one attempt at a job: its whole story.

        Raises:
            AttemptFailed: the leaf of its error says whether another attempt may succeed.
            Exception: whatever reason the lease's control gives to end.
        """
        run = Run(job, lease, report, time.monotonic())
        try:
            return self._run(run)
        except JobCancelledError:
            self._removal.remove(job)
            raise
        except JobError as error:
            raise self._diagnosis.of(run, error) from error

    def _run(self, run: Run) -> JobResult:
        job, started = run.job, run.began
        if job.start is Start.COLLECT:
            # The GPU that has executed it is not this worker's.
            run.lease.bound_until = float("inf")
            self._keeper.store(run.lease)
        run.tell("staging", 0.0)
        workflow = self._staging.stage(job, run.lease.control)
        timeline.mark(job.id, "staged")
        with self._server(job) as server, self._storing.uploads(run, server) as uploads:
            with self._listening(run, uploads.begin) as (notifications, subscription):
                if job.start is Start.SUBMIT:
                    self._submit(run, workflow)
                staged = self._through(run, "staging", started)
                if job.start is not Start.COLLECT:
                    run.submitted_at = run.lease.queued_at = staged
                entry = self._await(run, workflow, server, notifications, subscription)
            executed = self._through(run, "executing", staged)
            outputs = self._storing.store(run, entry, uploads)
        uploaded = self._through(run, "uploading", executed, files=len(outputs))
        result = JobResult(
            job_id=job.id,
            prompt_id=job.prompt_id,
            instance=job.instance,
            worker=self._worker,
            attempts=[*job.earlier, job.attempt(time.monotonic() - started, error=None)],
            metadata=job.request.metadata,
            outputs=outputs,
            manifest=ObjectRef(bucket=self._store.bucket, key=manifest_key(job.folder)),
            timings=Timings(
                queued=round(job.queued_seconds, 3),
                staged=round(staged - started, 3),
                executed=round(executed - staged, 3),
                uploaded=round(uploaded - executed, 3),
                total=round(uploaded - started, 3),
                nodes=dict(subscription.progress.node_seconds),
            ),
            values=shown_values(entry),
            seeds=seeds_in(executed_workflow(entry), workflow, job.request.params),
        )
        committed = self._commit(run, result)
        self._through(run, "committing", uploaded)
        return self._presigned(job.request, committed)

    def committed(self, job: Job, lease: Lease) -> JobResult | None:
        """The result of a job that is committed already, whoever did it.

        Raises:
            StorageUnavailableError, StorageDeniedError: nobody knows.
            Exception: whatever reason the lease's control gives to end.
        """
        return patiently(
            lambda: self._find(job),
            what="manifest",
            control=lease.control,
            storage_patience=self._s3_patience_seconds,
        )

    def committed_before(self, job: Job) -> JobResult | None:
        """The result of a job that is committed though the ledger does not know it.

        The ledger may have forgotten. If the store does not answer soon the job is run, and the
        commit tells.
        """

        def ask() -> JobResult | None:
            try:
                return self._find(job)
            except JobError as error:
                logger.warning("whether it is committed is not known: %s", error)
                raise

        return soon(ask)

    def recall(self, manifest: str, request: JobRequest) -> JobResult | None:
        """The result that stands in a manifest, as this request wants it; None if there is none.

        Raises:
            StorageUnavailableError, StorageDeniedError: nobody knows.
        """
        content = self._store.get(manifest)
        return self._presigned(request, read_manifest(content)) if content is not None else None

    def _find(self, job: Job) -> JobResult | None:
        content = self._manifests.find(job.id, manifest_key(job.folder))
        return None if content is None else self._presigned(job.request, read_manifest(content))

    @contextmanager
    def _server(self, job: Job) -> Iterator[ComfyUI]:
        """A client of the server that has, or gets, the prompt."""
        if job.start is Start.COLLECT:
            with self._server_at(job.instance) as server:
                yield server
        else:
            yield self._comfyui

    @contextmanager
    def _listening(
        self, run: Run, on_output: OnOutput
    ) -> Iterator[tuple[Notifications, Subscription]]:
        """Hear of the prompt; of an adopted one as the client that submitted it."""
        job = run.job
        hear = on_output, partial(self._keeper.execute, run.lease)
        if job.start is Start.ADOPT and job.client_id != self._notifications.client_id:
            notifications = self._listen_as(job.client_id)
            with notifications.subscribed(job.prompt_id, *hear, adopted=True) as subscription:
                notifications.start()
                try:
                    yield notifications, subscription
                finally:
                    notifications.stop()
        else:
            adopted = job.start is not Start.SUBMIT
            with self._notifications.subscribed(
                job.prompt_id, *hear, adopted=adopted
            ) as subscription:
                yield self._notifications, subscription

    def _submit(self, run: Run, workflow: Workflow) -> None:
        """Queue the prompt.

        Raises:
            Spared: it had better be queued elsewhere.
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

    def _await(
        self,
        run: Run,
        workflow: Workflow,
        server: ComfyUI,
        notifications: Notifications,
        subscription: Subscription,
    ) -> Mapping[str, Any]:
        """The history entry of the prompt once it has succeeded."""
        job = run.job

        def tick(running: bool) -> None:
            progress = subscription.progress
            run.executing = running or progress.started
            if run.executing:
                self._keeper.execute(run.lease)
                self._diagnosis.see_executing(job.id)
            elif run.lease.control.wanted_elsewhere and job.start is not Start.COLLECT:
                self._stopping.spare(run)
            value = STAGED + (EXECUTED - STAGED) * progress.share(workflow)
            node = workflow.get(progress.node_id or "", {})
            run.tell(
                "executing" if run.executing else "queued",
                value,
                node_id=progress.node_id,
                class_type=node.get("class_type"),
                step=progress.step,
                steps=progress.steps,
            )

        timeout = job.request.timeout_seconds
        patience = Patience(
            seconds=timeout,
            # When an adopted prompt began to execute is not known.
            since=None if job.start is Start.SUBMIT else run.began - job.age,
            stall=self._stall_seconds,
        )
        try:
            with run.lease.control.waking(subscription.look):
                entry = await_entry(
                    job.prompt_id,
                    comfyui=server,
                    notifications=notifications,
                    subscription=subscription,
                    patience=patience,
                    control=run.lease.control,
                    on_tick=tick,
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

    def _commit(self, run: Run, result: JobResult) -> JobResult:
        """Write the manifest, once; the result that stands in it is the job's."""

        def commit() -> JobResult:
            committed = self._manifests.commit(run.lease, result)
            timeline.mark(result.job_id, "committed")
            return committed

        return patiently(
            commit,
            what="manifest",
            control=run.lease.control,
            storage_patience=self._s3_patience_seconds,
        )

    def _presigned(self, request: JobRequest, result: JobResult) -> JobResult:
        # Not in the manifest: whoever may read that need not be allowed to hand out files.
        seconds = request.output.presign_seconds
        if seconds is None:
            return result

        def presigned(output: Output) -> Output:
            small = output.thumbnail
            if small is not None:
                url = self._store.presigned_url(small.key, seconds)
                small = small.model_copy(update={"url": url})
            url = self._store.presigned_url(output.key, seconds)
            return output.model_copy(update={"url": url, "thumbnail": small})

        return result.model_copy(update={"outputs": list(map(presigned, result.outputs))})

    def folder(self, job_id: str, request: JobRequest) -> str:
        """Where the objects of a job go that nobody had before."""
        return job_folder(self._prefix, request.output.prefix, job_id)

    def _through(self, run: Run, stage: Stage, since: float, *, files: int = 0) -> float:
        """Tell that a stage has ended which began then; the moment, by the same clock."""
        now = time.monotonic()
        self._observe(StageEnded(run.job.id, stage, time.time(), now - since, files))
        return now


def _nothing() -> None:
    pass
