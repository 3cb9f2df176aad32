"""The spine: one job from end to end."""

import json
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from tasks.errors import ComfyUIUnavailableError, JobError, StorageUnavailableError
from tasks.result import Attempt, JobResult, ObjectRef, Output, Progress, Timings
from tasks.workflow import Workflow, check_size, check_workflow, with_params
from workers.comfyui import ComfyUI, Notifications
from workers.comfyui.history import OutputFile, failure_in, output_files, shown_values
from workers.comfyui.notifications import Subscription
from workers.execution.inputs import place_inputs
from workers.execution.job import Job
from workers.execution.waiting import await_entry
from workers.storage import ObjectStore
from workers.storage.keys import job_folder, manifest_key, output_key

logger = logging.getLogger(__name__)

Report = Callable[[Progress], None]

# The shares of the progress bar that come before and after the execution.
_STAGED, _EXECUTED = 0.05, 0.9

# Seconds between attempts to store one file, beyond those that the store's client makes.
_UPLOAD_PAUSES = (0.5, 2.0, 5.0)


class Executor:
    """Runs jobs on one ComfyUI server and stores what they make. Thread-safe."""

    def __init__(
        self,
        *,
        comfyui: ComfyUI,
        notifications: Notifications,
        store: ObjectStore,
        worker: str,
        prefix: str,
        workflow_max_bytes: int,
        inputs_max_bytes: int,
    ) -> None:
        """Take the clients; they stay their maker's to close.

        Args:
            comfyui: the server to run on.
            notifications: its websocket.
            store: where outputs and manifests go.
            worker: this worker's name, for results.
            prefix: of every object key.
            workflow_max_bytes: size of a workflow as JSON above which it is refused.
            inputs_max_bytes: size of an input file above which it is refused.
        """
        self.instance = comfyui.base_url
        self._comfyui = comfyui
        self._notifications = notifications
        self._store = store
        self._worker = worker
        self._prefix = prefix
        self._workflow_max_bytes = workflow_max_bytes
        self._inputs_max_bytes = inputs_max_bytes

    def run(self, job: Job, report: Report) -> JobResult:
        """Run one attempt at a job: its whole story.

        Raises:
            JobError: the attempt failed; the leaf says whether another may succeed.
        """
        started = time.monotonic()
        folder = job_folder(self._prefix, job.request.output.prefix, job.id)
        if (committed := self._claim(job, folder)) is not None:
            return committed

        self._report(report, "staging", 0.0)
        workflow = self._stage(job)
        with self._notifications.subscribed(job.prompt_id) as subscription:
            adopted = self._submit(job, workflow)
            staged = time.monotonic()
            entry = self._await(job, workflow, started, subscription, report, adopted=adopted)
            executed = time.monotonic()
            nodes = dict(subscription.progress.node_seconds)
        outputs = self._upload(job, folder, entry, report)
        uploaded = time.monotonic()

        result = JobResult(
            job_id=job.id,
            prompt_id=job.prompt_id,
            instance=self.instance,
            worker=self._worker,
            attempts=[*job.earlier, self.attempt(job, started, error=None)],
            metadata=job.request.metadata,
            outputs=outputs,
            manifest=ObjectRef(bucket=self._store.bucket, key=manifest_key(folder)),
            timings=Timings(
                queued=round(job.queued_seconds, 3),
                staged=round(staged - started, 3),
                executed=round(executed - staged, 3),
                uploaded=round(uploaded - executed, 3),
                total=round(uploaded - started, 3),
                nodes=nodes,
            ),
            values=shown_values(entry),
        )
        return self._presigned(job, self._commit(result))

    def attempt(self, job: Job, started: float, error: JobError | None) -> Attempt:
        """What is kept of an attempt that began at `started` on the monotonic clock."""
        return Attempt(
            number=job.attempt,
            instance=self.instance,
            prompt_id=job.prompt_id,
            error=f"{type(error).__name__}: {error.message}" if error else None,
            seconds=round(time.monotonic() - started, 3),
        )

    def _claim(self, job: Job, folder: str) -> JobResult | None:
        """The result of a job that was committed before; it touches no GPU again."""
        manifest = self._store.get(manifest_key(folder))
        return self._presigned(job, _read_manifest(manifest)) if manifest else None

    def _stage(self, job: Job) -> dict[str, Any]:
        """The workflow as it is submitted: checked, with params set and inputs placed."""
        check_workflow(job.request.workflow)
        check_size(job.request.workflow, self._workflow_max_bytes)
        return place_inputs(
            with_params(job.request.workflow, job.request.params),
            job.request.inputs,
            job.id,
            comfyui=self._comfyui,
            store=self._store,
            max_bytes=self._inputs_max_bytes,
        )

    def _submit(self, job: Job, workflow: Workflow) -> bool:
        """Queue the prompt, unless the server already has it; whether it had."""
        if job.redelivered and self._comfyui.knows(job.prompt_id):
            logger.info("job %s: prompt %s adopted", job.id, job.prompt_id)
            return True
        try:
            self._comfyui.submit(workflow, job.prompt_id, self._notifications.client_id)
        except ComfyUIUnavailableError:
            # The answer was lost, the prompt perhaps not: posted again it would run twice.
            if not self._comfyui.knows(job.prompt_id):
                raise
            return True
        return False

    def _await(
        self,
        job: Job,
        workflow: Workflow,
        started: float,
        subscription: Subscription,
        report: Report,
        *,
        adopted: bool,
    ) -> Mapping[str, Any]:
        """The history entry of the prompt once it has succeeded."""

        def tick() -> None:
            progress = subscription.progress
            value = _STAGED + (_EXECUTED - _STAGED) * progress.share(workflow)
            node = workflow.get(progress.node_id or "", {})
            self._report(
                report,
                "executing" if progress.started else "queued",
                value,
                node_id=progress.node_id,
                class_type=node.get("class_type"),
                step=progress.step,
                steps=progress.steps,
            )

        timeout = job.request.timeout_seconds
        try:
            entry = await_entry(
                job.prompt_id,
                comfyui=self._comfyui,
                notifications=self._notifications,
                subscription=subscription,
                deadline=started + timeout if timeout else None,
                on_tick=tick,
                adopted=adopted,
            )
        except JobError:
            # Nobody waits for it any more: it must not hold up the next one.
            self._comfyui.try_cancel(job.prompt_id)
            raise
        if (failure := failure_in(entry, workflow)) is not None:
            raise failure
        return entry

    def _upload(
        self, job: Job, folder: str, entry: Mapping[str, Any], report: Report
    ) -> list[Output]:
        """Stream every output file into the store."""
        files = output_files(entry, include_temp=job.request.output.include_temp)
        outputs = []
        for number, file in enumerate(files):
            self._report(report, "uploading", _EXECUTED + (1 - _EXECUTED) * number / len(files))
            outputs.append(self._upload_patiently(job, folder, file))
        return outputs

    def _upload_patiently(self, job: Job, folder: str, output: OutputFile) -> Output:
        # The GPU has been paid for: a passing fault must not have it paid again.
        for pause in _UPLOAD_PAUSES:
            try:
                return self._upload_one(job, folder, output)
            except (ComfyUIUnavailableError, StorageUnavailableError) as error:
                logger.warning("job %s: %s; again in %.1f s", job.id, error, pause)
                time.sleep(pause)
        return self._upload_one(job, folder, output)

    def _upload_one(self, job: Job, folder: str, output: OutputFile) -> Output:
        key = output_key(folder, job.attempt, output.node_id, output.index, output.file.filename)
        with self._comfyui.view(output.file) as download:
            stored = self._store.put(key, download)
        return Output(
            node_id=output.node_id,
            kind=output.kind,
            filename=output.file.filename,
            bucket=stored.bucket,
            key=stored.key,
            uri=stored.uri,
            content_type=stored.content_type,
            size_bytes=stored.size_bytes,
            sha256=stored.sha256,
        )

    def _commit(self, result: JobResult) -> JobResult:
        """Write the manifest, once; the result that stands in it is the job's."""
        manifest = result.model_dump_json(indent=1).encode()
        if self._store.create(result.manifest.key, manifest, "application/json"):
            return result
        logger.info("job %s: was committed by another attempt", result.job_id)
        return _read_manifest(self._store.get(result.manifest.key) or manifest)

    def _presigned(self, job: Job, result: JobResult) -> JobResult:
        # Not in the manifest: whoever may read that need not be allowed to hand out files.
        seconds = job.request.output.presign_seconds
        if seconds is None:
            return result
        outputs = [
            output.model_copy(update={"url": self._store.presigned_url(output.key, seconds)})
            for output in result.outputs
        ]
        return result.model_copy(update={"outputs": outputs})

    def _report(self, report: Report, stage: str, value: float, **where: Any) -> None:
        report(Progress(stage=stage, value=round(value, 3), instance=self.instance, **where))


def _read_manifest(content: bytes) -> JobResult:
    # A later version may have written more than this one knows.
    return JobResult.model_validate(json.loads(content), extra="ignore")
