"""The S3 policy of deploy/security allows what the store is really asked, and nothing else."""

import inspect
import json
import os
import uuid
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import boto3
import pytest

from sandbox.stack import Stack
from workers.storage import ObjectStore
from workers.storage.store import PART_BYTES

pytestmark = pytest.mark.integration

FOLDER = Path(__file__).parents[2] / "deploy" / "security"

# What AWS asks for each operation (Service Authorization Reference): a manifest's `If-None-Match`
# needs no more, and who may not list gets 403 instead of 404 for what is not there.
NEEDED = {
    "PutObject": {"s3:PutObject"},
    "CreateMultipartUpload": {"s3:PutObject"},
    "UploadPart": {"s3:PutObject"},
    "CompleteMultipartUpload": {"s3:PutObject"},
    "AbortMultipartUpload": {"s3:AbortMultipartUpload"},
    "GetObject": {"s3:GetObject", "s3:ListBucket"},
    "HeadObject": {"s3:GetObject", "s3:ListBucket"},
    "DeleteObjects": {"s3:DeleteObject"},
    "ListObjectsV2": {"s3:ListBucket"},
    "HeadBucket": {"s3:ListBucket"},
}


def statements(name: str) -> list[dict[str, Any]]:
    policy = json.loads((FOLDER / name).read_text())
    assert policy["Version"] == "2012-10-17"
    return policy["Statement"]


def listed(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value]


class Asked:
    """A client of the store, and which operations it was used for."""

    def __init__(self, stack: Stack) -> None:
        environment = stack.environment()
        self.operations: set[str] = set()
        self.client = boto3.client(
            "s3",
            endpoint_url=environment["S3_ENDPOINT_URL"],
            aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
            region_name=environment["AWS_DEFAULT_REGION"],
        )
        self.client.meta.events.register("before-call.s3", self._note)
        self.store = ObjectStore(self.client, environment["S3_BUCKET"])

    def _note(self, model: Any, **_: Any) -> None:
        self.operations.add(model.name)


@pytest.fixture
def asked(stack: Stack) -> Iterator[Asked]:
    one = Asked(stack)
    yield one
    one.store.close()


class Broken(BytesIO):
    """A stream that ends with an error after its first part."""

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() > PART_BYTES:
            raise OSError("x")
        return super().read(size)


def test_all_that_the_store_is_asked_for_is_allowed_and_nothing_else(asked: Asked) -> None:
    store, folder = asked.store, f"policy/{uuid.uuid4()}"
    used = {"close"}

    def use(method: Any, *arguments: Any) -> Any:
        used.add(method.__name__)
        return method(*arguments)

    use(store.put, f"{folder}/small", BytesIO(b"x"))
    use(store.put, f"{folder}/large", BytesIO(os.urandom(PART_BYTES + 1)))
    with pytest.raises(OSError, match="^x$"):
        use(store.put, f"{folder}/broken", Broken(bytes(3 * PART_BYTES)))
    use(store.create, f"{folder}/manifest.json", b"{}", "application/json")
    use(store.get, f"{folder}/small")
    use(store.stat, f"{folder}/none")
    use(store.beside, "other")
    use(store.look)
    use(store.replace, f"{folder}/replaced", b"{}", "application/json")
    with use(store.opened, f"{folder}/small"):
        pass
    use(store.presigned_url, f"{folder}/small", 60)
    use(store.delete, [f"{folder}/small"])
    use(store.delete_folder, folder)
    # A method that comes later must be used here, too.
    assert used == {
        name for name, _ in inspect.getmembers(store, inspect.ismethod) if name[0] != "_"
    }
    needed = set().union(*(NEEDED[operation] for operation in asked.operations))
    allowed = {action for one in statements("s3-worker.json") for action in listed(one["Action"])}
    assert allowed == needed


@pytest.mark.parametrize("name", ["s3-worker.json", "s3-producer.json"])
def test_nothing_is_allowed_everywhere(name: str) -> None:
    for one in statements(name):
        assert one["Effect"] == "Allow"
        for action in listed(one["Action"]):
            assert "*" not in action
            # Objects are below a bucket, and a bucket is no object.
            for resource in listed(one["Resource"]):
                assert resource.startswith("arn:aws:s3:::")
                assert resource.endswith("/*") == (action != "s3:ListBucket")


def test_producers_only_read() -> None:
    assert [one["Action"] for one in statements("s3-producer.json")] == ["s3:GetObject"]
