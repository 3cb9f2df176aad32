"""The object store adapter on a real store, and what a large output costs the worker."""

import hashlib
import os
import uuid
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import boto3
import pytest
from botocore.config import Config

from sandbox.stack import Stack
from tasks.errors import StorageDeniedError, StorageUnavailableError
from tests.stack import Client, bars
from workers.storage import ObjectStore
from workers.storage.store import PART_BYTES

pytestmark = pytest.mark.integration

MEBIBYTE = 1024 * 1024


def store_at(url: str, bucket: str, secret: str | None) -> ObjectStore:
    client = boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="sandbox",
        aws_secret_access_key=secret,
        config=Config(retries={"max_attempts": 0}, connect_timeout=1, read_timeout=10),
    )
    return ObjectStore(client, bucket)


@pytest.fixture
def store(stack: Stack) -> Iterator[ObjectStore]:
    secret = stack.seaweedfs.credentials["AWS_SECRET_ACCESS_KEY"]
    one = store_at(stack.seaweedfs.url, stack.seaweedfs.bucket, secret)
    yield one
    one.close()


class Trickle:
    """A stream that gives less than asked for, as networks do."""

    def __init__(self, content: bytes) -> None:
        self._stream = BytesIO(content)

    def read(self, size: int) -> bytes:
        return self._stream.read(min(size, 300_000))


@pytest.mark.parametrize(
    "size", [0, 1, 5_000, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES + 7]
)
def test_a_stream_of_any_size_is_stored_whole(
    store: ObjectStore, client: Client, size: int
) -> None:
    content = os.urandom(size)
    key = f"sizes/{uuid.uuid4()}"
    stored = store.put(key, Trickle(content))
    assert (stored.size_bytes, stored.sha256) == (size, hashlib.sha256(content).hexdigest())
    assert client.content(key) == content
    assert store.stat(key).size_bytes == size


def test_the_content_type_is_told_from_the_bytes(store: ObjectStore, client: Client) -> None:
    key = f"types/{uuid.uuid4()}.png"
    assert store.put(key, BytesIO(b"a cat")).content_type == "text/plain; charset=utf-8"
    head = client.s3.head_object(Bucket=client.bucket, Key=key)
    assert head["ContentType"] == "text/plain; charset=utf-8"


def test_only_the_first_creates(store: ObjectStore) -> None:
    key = f"once/{uuid.uuid4()}"
    assert store.get(key) is None
    assert store.stat(key) is None
    assert store.create(key, b"first", "text/plain")
    assert not store.create(key, b"second", "text/plain")
    assert store.get(key) == b"first"


def test_a_source_that_breaks_leaves_nothing_behind(store: ObjectStore) -> None:
    class Broken(Trickle):
        def read(self, size: int) -> bytes:
            if not (part := super().read(size)):
                raise ConnectionResetError
            return part

    for size in (10, 2 * PART_BYTES):
        key = f"broken/{uuid.uuid4()}"
        with pytest.raises(ConnectionResetError):
            store.put(key, Broken(os.urandom(size)))
        assert store.get(key) is None


def test_a_store_that_refuses(stack: Stack) -> None:
    url, bucket = stack.seaweedfs.url, stack.seaweedfs.bucket
    with pytest.raises(StorageDeniedError, match=r"refuses PutObject on bucket 'comfyui' \(403"):
        store_at(url, bucket, "wrong").put("x", BytesIO(b"x"))
    with pytest.raises(StorageDeniedError, match="403"):
        store_at(url, bucket, "wrong").get("x")


def test_a_store_that_is_gone() -> None:
    store = store_at("http://127.0.0.1:1", "b", "s")
    for attempt in (lambda: store.put("x", BytesIO(b"x")), lambda: store.get("x")):
        with pytest.raises(StorageUnavailableError, match="bucket 'b' did not answer"):
            attempt()


def _peak_mebibytes(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_a_large_output_passes_in_bounded_memory(stack: Stack, seed: int) -> None:
    size = int(os.environ.get("LARGE_OUTPUT_MEBIBYTES", "256")) * MEBIBYTE
    # A database of its own: no other worker may take these jobs.
    broker = stack.valkey.url.replace("/0", "/1")
    own = {"CELERY_BROKER_URL": broker, "CELERY_RESULT_BACKEND": broker}
    client = Client({**stack.environment(), **own})
    worker = stack.worker(settings=own)
    (small,) = client.run(bars(seed))["outputs"]
    before = _peak_mebibytes(worker.pid)

    # An identical workflow is answered from the cache with the same file: let that be large.
    (path,) = stack.comfyui.directory.rglob(f"output/**/{small['filename']}")
    with path.open("r+b") as file:
        file.truncate(size)
    (large,) = client.run(bars(seed))["outputs"]
    grown = _peak_mebibytes(worker.pid) - before
    worker.stop()
    path.unlink()

    assert large["size_bytes"] == size
    assert _sha256_of(client, large["key"]) == large["sha256"]
    print(f"\nan output of {size // MEBIBYTE} MiB: the worker's peak grew by {grown:.1f} MiB")
    assert grown <= 64
    client.close()


def _sha256_of(client: Client, key: str) -> str:
    digest = hashlib.sha256()
    body = client.s3.get_object(Bucket=client.bucket, Key=key)["Body"]
    for part in body.iter_chunks(MEBIBYTE):
        digest.update(part)
    return digest.hexdigest()
