"""The spine: one attempt at a job from end to end."""

import logging
import time

from tasks.errors import JobCancelledError, JobError
from tasks.request import JobRequest
from tasks.result import JobResult, ObjectRef, Output, Timings
from workers import timeline
from workers.comfyui.history import executed_workflow, shown_values
from workers.execution.diagnosis import Diagnosis
from workers.execution.job import Job, Start
from workers.execution.keeper import Keeper, Lease
from workers.execution.manifests import Manifests, read_manifest
from workers.execution.patience import patiently, soon
from workers.execution.prompts import Prompts
from workers.execution.removal import Removal
from workers.execution.run import Report, Run
from workers.execution.staging import Staging
from workers.execution.storing import Storing
from workers.nodes.params import seeds_in
from workers.observing import Observe, StageEnded, unobserved
from workers.observing.events import Stage
from workers.storage import ObjectStore
from workers.storage.keys import job_folder, manifest_key

logger = logging.getLogger(__name__)


class Executor:
    """Runs jobs on one ComfyUI server and stores what they make. Thread-safe."""

    def __init__(
        self,
        *,
        staging: Staging,
        prompts: Prompts,
        storing: Storing,
        diagnosis: Diagnosis,
        keeper: Keeper,
        store: ObjectStore,
        manifests: Manifests,
        removal: Removal,
        worker: str,
        prefix: str,
        s3_patience_seconds: float,
        observe: Observe = unobserved,
    ) -> None:
        """Take the clients; they stay their maker's to close.

        Args:
            staging: makes workflows ready.
            prompts: has them executed.
            storing: stores what they make.
            diagnosis: tells what failures say.
            keeper: of this worker's leases.
            store: where results are.
            manifests: commits.
            removal: takes back what cancelled jobs have stored.
            worker: this worker's name, for results.
            prefix: of every object key.
            s3_patience_seconds: seconds for which a commit is tried again.
            observe: is told of stages.
        """
        self._staging = staging
        self._prompts = prompts
        self._storing = storing
        self._diagnosis = diagnosis
        self._keeper = keeper
        self._store = store
        self._manifests = manifests
        self._removal = removal
        self._worker = worker
        self._prefix = prefix
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
        with self._prompts.server(job) as server, self._storing.uploads(run, server) as uploads:
            with self._prompts.watching(run, server, uploads.begin) as watch:
                if job.start is Start.SUBMIT:
                    self._prompts.submit(run, workflow)
                staged = self._through(run, "staging", started)
                if job.start is not Start.COLLECT:
                    run.submitted_at = run.lease.queued_at = staged
                entry = self._prompts.wait(run, workflow, watch)
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
                nodes=dict(watch.subscription.progress.node_seconds),
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
