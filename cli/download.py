"""Saving what jobs have made to a folder on this machine."""

import hashlib
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from cli.errors import CommandError
from settings import load
from tasks.result import JobResult, Output

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
        for path in _names(output, folder):
            if not path.exists():
                break
            if _digest(path) == output.sha256:
                return path
        # Under its name there is only what is whole.
        part = folder / f".{uuid4().hex}.part"
        try:
            with part.open("wb") as file:
                if not self._store(output.bucket).download(output.key, file):
                    raise CommandError(f"{output.uri} is gone")
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        return path

    def _store(self, bucket: str) -> "ObjectStore":
        if bucket not in self._stores:
            # It loads boto3, which few commands need.
            from workers.bootstrap import object_store

            settings = load().model_copy(update={"s3_bucket": bucket})
            self._stores[bucket] = object_store(settings)
        return self._stores[bucket]


def _names(output: Output, folder: Path) -> Iterator[Path]:
    """Where a file may be saved, best first; the store's own name for it leads nowhere else."""
    _, _, name = output.key.rpartition("/")[2].partition("-")
    given = Path(name or "file")
    yield folder / given
    for number in count(2):
        yield folder / f"{given.stem}-{number}{given.suffix}"


def _digest(path: Path) -> str | None:
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
