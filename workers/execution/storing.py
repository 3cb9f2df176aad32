"""Storing: files go into the store as they are made, and leave it where that came to nothing."""

from collections.abc import Iterable, Iterator, Mapping
from concurrent import futures
from contextlib import contextmanager
from typing import Any

from tasks.errors import JobCancelledError, JobError, StorageDeniedError, StorageUnavailableError
from tasks.result import Output
from workers.comfyui import ComfyUI
from workers.comfyui.history import out_of_bounds, overwritten
from workers.execution.control import HandedOn
from workers.execution.keeper import Keeper
from workers.execution.manifests import Manifests
from workers.execution.output_bounds import MostOutput
from workers.execution.patience import SOON_SECONDS
from workers.execution.removal import Removal
from workers.execution.run import EXECUTED, Run
from workers.execution.uploading import Uploads
from workers.observing import Observe, unobserved
from workers.storage import ObjectStore

# Seconds that an upload has to end which nobody wants any more.
_ABANDON_SECONDS = 5.0

# After these nothing is taken back: all of the job is removed, or its prompt is collected later.
_NOT_FOR_NOTHING = (JobCancelledError, StorageUnavailableError, StorageDeniedError)

_MOST_OUTPUT = MostOutput()


class Storing:
    """Stores the files that prompts make. Thread-safe."""

    def __init__(
        self,
        *,
        store: ObjectStore,
        uploaders: futures.Executor,
        removal: Removal,
        manifests: Manifests,
        keeper: Keeper,
        most_output: MostOutput = _MOST_OUTPUT,
        s3_patience_seconds: float,
        observe: Observe = unobserved,
    ) -> None:
        """Take what it works with; the store stays its maker's to close.

        Args:
            store: where files go.
            uploaders: runs the uploads of all jobs.
            removal: takes back what came to nothing.
            manifests: know which files may still be named.
            keeper: of this worker's leases.
            most_output: how much a job may make.
            s3_patience_seconds: seconds for which an upload is tried again.
            observe: is told of files.
        """
        self._store = store
        self._uploaders = uploaders
        self._removal = removal
        self._manifests = manifests
        self._keeper = keeper
        self._most_output = most_output
        self._s3_patience_seconds = s3_patience_seconds
        self._observe = observe

    @contextmanager
    def uploads(self, run: Run, server: ComfyUI) -> Iterator[Uploads]:
        """What stores the prompt's files, each from when it is made.

        What it has stored is taken back if the attempt comes to nothing.
        """
        uploads = Uploads(
            run.job,
            pool=self._uploaders,
            server=server,
            store=self._store,
            control=run.lease.control,
            storage_patience=self._s3_patience_seconds,
            most=self._most_output,
            observe=self._observe,
        )
        try:
            yield uploads
        except HandedOn:
            # Whoever goes on with the prompt stores the same under the same keys.
            if run.lease.prompt_stopped:
                self._take_back(run, uploads.abandon(SOON_SECONDS))
            else:
                uploads.abandon()
            raise
        except BaseException as error:
            stored = uploads.abandon(_ABANDON_SECONDS)
            if isinstance(error, JobError) and not isinstance(error, _NOT_FOR_NOTHING):
                self._take_back(run, stored)
            raise

    def store(self, run: Run, entry: Mapping[str, Any], uploads: Uploads) -> list[Output]:
        """Store every output file that is not stored yet.

        Raises:
            JobError: they cannot be had, or not be stored.
            Exception: whatever reason the lease's control gives to end.
        """
        outputs: list[Output] = []
        run.tell("uploading", EXECUTED)
        include_temp = run.job.request.output.include_temp
        if (fault := out_of_bounds(entry, include_temp=include_temp)) is not None:
            raise fault
        pending = uploads.finish(entry)
        run.nodes = tuple({file.node_id: None for file, _ in pending})
        if (replaced := overwritten(entry, include_temp=include_temp)) is not None:
            raise replaced
        for number, (_, wait) in enumerate(pending, 1):
            outputs.append(wait())
            run.tell("uploading", EXECUTED + (1 - EXECUTED) * number / len(pending))
        surplus = uploads.surplus([file for file, _ in pending], _ABANDON_SECONDS)
        self._removal.remove_files(surplus, may=lambda: True)
        return outputs

    def _take_back(self, run: Run, stored: Iterable[str]) -> None:
        """Remove what a failed attempt has stored early; nobody would know of it."""
        # Of a prompt that others may go on with they store the same, under the same keys.
        if not self._manifests.may_name(run.job.id):
            self._removal.remove_files(stored, may=lambda: self._keeper.is_sure(run.lease))
