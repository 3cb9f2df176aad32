"""Saving what jobs have made to a folder on this machine."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from cli.errors import CommandError
from settings import load
from tasks.result import JobResult, Output
from workers.direct.saving import places, save

if TYPE_CHECKING:
    from workers.storage import ObjectStore


class Downloads:
    """Fetches outputs from the buckets that they are in."""

    def __init__(self) -> None:
        self._stores: dict[str, ObjectStore] = {}

    def save(self, result: JobResult, folder: Path) -> list[Path]:
        """Save the files of a job to a folder under the names that its nodes gave them.

        What lies there stays: another file gets another name, the same is not fetched again.

        Raises:
            CommandError: an object is gone.
            StorageUnavailableError, StorageDeniedError: the object store does not give it.
            OSError: the folder cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        return [self._save(output, folder) for output in result.outputs]

    def close(self) -> None:
        """Close all connections."""
        for store in self._stores.values():
            store.close()

    def _save(self, output: Output, folder: Path) -> Path:
        for path in places(folder, output.filename):
            if not path.exists():
                break
            if _digest(path) == output.sha256:
                return path
        with self._store(output.bucket).opened(output.key) as found:
            if found is None:
                raise CommandError(f"{output.uri} is gone")
            return save(found.pieces, folder, output.filename)

    def _store(self, bucket: str) -> "ObjectStore":
        if bucket not in self._stores:
            # It loads boto3, which few commands need.
            from workers.bootstrap.clients import object_store

            settings = load().model_copy(update={"s3_bucket": bucket})
            self._stores[bucket] = object_store(settings)
        return self._stores[bucket]


def _digest(path: Path) -> str | None:
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
