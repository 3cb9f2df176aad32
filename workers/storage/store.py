"""Objects in an S3 bucket: streamed up, committed once, read back, presigned."""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import IO, TYPE_CHECKING, Protocol, cast

from boto3.s3.transfer import TransferConfig

from tasks.errors import JobError, StorageDeniedError
from workers.storage.content_type import HEAD_BYTES, content_type
from workers.storage.seam import answer, headers, translated

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import GetObjectRequestTypeDef, ObjectIdentifierTypeDef

_MEBIBYTE = 1024 * 1024
# Below this a file is one request from memory; a larger one goes in parts of this size, of which
# the transfer manager holds two, whatever the size of the file.
PART_BYTES = 8 * _MEBIBYTE
_PARTS_AT_ONCE = 2
_PIECE_BYTES = 256 * 1024
# As many as S3 takes in one request.
_DELETED_AT_ONCE = 1000


class Readable(Protocol):
    """A stream of bytes."""

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; nothing at the end."""


@dataclass(frozen=True)
class StoredObject:
    """What was stored."""

    bucket: str
    key: str
    content_type: str
    size_bytes: int
    sha256: str
    # When its last byte had been read, Unix time in seconds.
    read_at: float | None = None

    @property
    def uri(self) -> str:
        """The object's address as S3 tools take it."""
        return f"s3://{self.bucket}/{self.key}"


@dataclass(frozen=True)
class ObjectStat:
    """What is known of an object without its content."""

    size_bytes: int
    # Another one for other content.
    etag: str


@dataclass(frozen=True)
class OpenObject:
    """An object that is being read.

    Attributes:
        pieces: its content as it comes; raises StorageUnavailableError.
        size_bytes: of all of it.
        etag: another one for other content.
        changed: whether it is something else than what had the tag that was given.
    """

    pieces: Iterator[bytes]
    size_bytes: int
    etag: str
    changed: bool = True


class ObjectStore:
    """One bucket. Thread-safe.

    Every method raises StorageUnavailableError or StorageDeniedError.
    """

    def __init__(
        self, client: "S3Client", bucket: str, *, on_denied: Callable[[], object] = lambda: None
    ) -> None:
        """Take the client, which is closed with this.

        Args:
            client: of the store.
            bucket: its name.
            on_denied: called whenever the bucket was not there, or not ours to write.
        """
        self.bucket = bucket
        self._client = client
        self._on_denied = on_denied
        self._transfer = TransferConfig(
            multipart_threshold=PART_BYTES,
            multipart_chunksize=PART_BYTES,
            max_concurrency=_PARTS_AT_ONCE,
        )
        self._transfer.max_in_memory_upload_chunks = _PARTS_AT_ONCE

    def beside(self, bucket: str) -> "ObjectStore":
        """Another bucket, over the same connections: they are closed with this one."""
        return ObjectStore(self._client, bucket)

    def put(self, key: str, stream: Readable) -> StoredObject:
        """Store a stream of unknown length in one pass and bounded memory.

        Small files are one request. Of a large one nothing is visible before its last part.
        """
        measured = _Measured(stream)
        head = measured.read(PART_BYTES)
        media_type = content_type(head[:HEAD_BYTES])
        with self._writing():
            if len(head) < PART_BYTES:
                self._client.put_object(
                    Bucket=self.bucket, Key=key, Body=head, ContentType=media_type
                )
            else:
                whole = _Joined(head, measured)
                # The first part is the joined stream's to hold and to let go.
                del head
                self._client.upload_fileobj(
                    cast("IO[bytes]", whole),
                    self.bucket,
                    key,
                    ExtraArgs={"ContentType": media_type},
                    Config=self._transfer,
                )
        return StoredObject(
            self.bucket,
            key,
            media_type,
            measured.size,
            measured.digest.hexdigest(),
            measured.ended_at,
        )

    def create(self, key: str, content: bytes, media_type: str) -> bool:
        """Store an object unless the key is taken; whether this call created it."""
        try:
            with self._writing():
                self._client.put_object(
                    Bucket=self.bucket,
                    Key=key,
                    Body=content,
                    ContentType=media_type,
                    IfNoneMatch="*",
                )
        except JobError as error:
            if answer(error)[0] == 412:
                return False
            raise
        return True

    def replace(self, key: str, content: bytes, media_type: str) -> None:
        """Store an object, whatever the key had before."""
        with self._writing():
            self._client.put_object(
                Bucket=self.bucket, Key=key, Body=content, ContentType=media_type
            )

    def get(self, key: str) -> bytes | None:
        """An object's content, or None if there is no such object."""
        with self.opened(key) as found:
            return None if found is None else b"".join(found.pieces)

    @contextmanager
    def opened(self, key: str, etag: str = "") -> Iterator[OpenObject | None]:
        """An object whose content is not held in memory; None if there is no such object.

        Args:
            key: which.
            etag: of what is known already: the same is not read again.
        """
        question: GetObjectRequestTypeDef = {"Bucket": self.bucket, "Key": key}
        if etag:
            question["IfNoneMatch"] = etag
        try:
            with translated(self.bucket):
                found = self._client.get_object(**question)
        except JobError as error:
            match answer(error):
                case (_, "NoSuchKey" | "KeyTooLongError"):
                    yield None
                case (304, _):
                    yield OpenObject(iter(()), 0, etag, changed=False)
                case _:
                    raise
            return
        body = found["Body"]
        with closing(body):
            yield OpenObject(self._pieces(body), found["ContentLength"], found["ETag"])

    def _pieces(self, body: Readable) -> Iterator[bytes]:
        while True:
            # Only the read that finds the end tells whether it came too early.
            with translated(self.bucket):
                piece = body.read(_PIECE_BYTES)
            if not piece:
                return
            yield piece

    def stat(self, key: str) -> ObjectStat | None:
        """What is known of an object, or None if there is no such object."""
        try:
            with translated(self.bucket):
                found = self._client.head_object(Bucket=self.bucket, Key=key)
        except JobError as error:
            # 400: a key that no store can have.
            if answer(error)[0] in (400, 404):
                return None
            raise
        return ObjectStat(found["ContentLength"], found["ETag"])

    def look(self) -> str | None:
        """Whether the bucket is there, as far as that is told: the store's clock, an HTTP date."""
        try:
            with translated(self.bucket):
                found = self._client.head_bucket(Bucket=self.bucket)
        except JobError as error:
            status = answer(error)[0]
            if status == 404:
                # Some stores would make one with the first object.
                raise StorageDeniedError(f"there is no bucket {self.bucket!r}") from error.__cause__
            if status != 403:
                raise
            # Whoever may write need not be allowed to look.
            return headers(error).get("date")
        return found["ResponseMetadata"]["HTTPHeaders"].get("date")

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects, many with one request; those that are not there do not matter."""
        left: list[ObjectIdentifierTypeDef] = [{"Key": key} for key in keys]
        with translated(self.bucket):
            while left:
                some, left = left[:_DELETED_AT_ONCE], left[_DELETED_AT_ONCE:]
                removed = self._client.delete_objects(
                    Bucket=self.bucket, Delete={"Objects": some, "Quiet": True}
                )
                for error in removed.get("Errors", []):
                    raise StorageDeniedError(
                        f"S3 bucket {self.bucket!r}: {error.get('Key')} cannot be removed "
                        f"({error.get('Code')})"
                    )

    def delete_folder(self, folder: str) -> None:
        """Remove every object below a folder, which is named without a slash at its end."""
        with translated(self.bucket):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=f"{folder}/"
            )
            for page in pages:
                self.delete(item["Key"] for item in page.get("Contents", []))

    def presigned_url(self, key: str, seconds: int) -> str:
        """A URL with which anybody can download the object for so many seconds."""
        with translated(self.bucket):
            return self._client.generate_presigned_url(
                "get_object", Params={"Bucket": self.bucket, "Key": key}, ExpiresIn=seconds
            )

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            with translated(self.bucket):
                yield
        except StorageDeniedError:
            self._on_denied()
            raise


class _Measured:
    """A stream that counts and digests what is read from it."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self.size = 0
        self.digest = hashlib.sha256()
        self.ended_at: float | None = None

    def read(self, size: int) -> bytes:
        parts = []
        # The network gives what it has; a part that is short means the end to the uploader.
        while size > 0:
            part = self._stream.read(size)
            if not part:
                self.ended_at = self.ended_at or time.time()
                break
            self.digest.update(part)
            self.size += len(part)
            size -= len(part)
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)


class _Joined:
    """A head that was read already, and the rest of its stream."""

    def __init__(self, head: bytes, rest: Readable) -> None:
        self._head = BytesIO(head)
        self._rest = rest

    def read(self, size: int) -> bytes:
        part = self._head.read(size)
        if len(part) == size:
            return part
        self._head = BytesIO()
        return part + self._rest.read(size - len(part)) if part else self._rest.read(size)
