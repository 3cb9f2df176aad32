"""What the store makes of what S3 answers to a question for one object."""

from io import BytesIO
from typing import Any

import pytest
from botocore.exceptions import ClientError
from botocore.response import StreamingBody

from tasks.errors import JobError, StorageDeniedError, StorageUnavailableError
from workers.storage import ObjectStore


class Client:
    """A bucket with one object, or one that answers with an error."""

    def __init__(self, error: tuple[int, str] | None = None) -> None:
        self._error = error
        self.asked: list[dict[str, Any]] = []
        self.undeletable: list[dict[str, str]] = []

    def delete_objects(self, **question: Any) -> dict[str, Any]:
        self.asked.append(question)
        return {"Errors": self.undeletable} if self.undeletable else {}

    def get_object(self, **question: Any) -> dict[str, Any]:
        self.asked.append(question)
        if self._error:
            status, code = self._error
            answer = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
            raise ClientError(answer, "GetObject")  # type: ignore[arg-type]
        self.body = BytesIO(b"red")
        return {"Body": self.body, "ETag": '"1"', "ContentLength": 3}


def store(client: Client) -> ObjectStore:
    return ObjectStore(client, "b")  # type: ignore[arg-type]


def test_an_object_comes_with_its_tag() -> None:
    client = Client()
    assert store(client).get("a") == b"red"
    with store(client).opened("a") as found:
        assert found
        assert (list(found.pieces), found.size_bytes, found.etag) == ([b"red"], 3, '"1"')
        assert found.changed
    assert client.body.closed
    assert client.asked == [{"Bucket": "b", "Key": "a"}] * 2


def test_an_object_that_is_known_is_not_read() -> None:
    client = Client((304, ""))
    with store(client).opened("a", '"1"') as found:
        assert found
        assert (list(found.pieces), found.etag, found.changed) == ([], '"1"', False)
    assert client.asked == [{"Bucket": "b", "Key": "a", "IfNoneMatch": '"1"'}]


def test_another_bucket_is_asked_by_the_same_client() -> None:
    client = Client()
    assert store(client).beside("c").get("a") == b"red"
    assert client.asked == [{"Bucket": "c", "Key": "a"}]


def test_an_object_that_is_cut_short_is_no_content() -> None:
    client = Client()
    body = StreamingBody(BytesIO(b"re"), 3)  # type: ignore[no-untyped-call]
    answer = {"Body": body, "ETag": '"1"', "ContentLength": 3}
    client.get_object = lambda **_: answer  # type: ignore[method-assign]
    with store(client).opened("a") as found:
        assert found
        with pytest.raises(StorageUnavailableError):
            list(found.pieces)


def test_many_objects_are_removed_with_few_requests() -> None:
    client = Client()
    store(client).delete(f"{number}" for number in range(2500))
    sizes = [len(one["Delete"]["Objects"]) for one in client.asked]
    assert sizes == [1000, 1000, 500]
    store(client).delete([])
    assert len(client.asked) == 3


def test_an_object_that_may_not_be_removed_is_an_error() -> None:
    client = Client()
    client.undeletable = [{"Key": "a", "Code": "AccessDenied"}]
    with pytest.raises(StorageDeniedError, match=r"a cannot be removed \(AccessDenied\)"):
        store(client).delete(["a", "b"])


def test_who_is_denied_writing_is_told_of() -> None:
    told: list[str] = []
    client = Client((403, "AccessDenied"))
    client.put_object = client.get_object  # type: ignore[attr-defined]
    one = ObjectStore(client, "b", on_denied=lambda: told.append("denied"))  # type: ignore[arg-type]
    for write in (
        lambda: one.put("a", BytesIO(b"x")),
        lambda: one.create("a", b"x", "text/plain"),
        lambda: one.replace("a", b"x", "text/plain"),
    ):
        with pytest.raises(StorageDeniedError):
            write()
    assert told == ["denied"] * 3
    # What is read may be denied for reasons of its own, as may other buckets.
    for read in (lambda: one.get("a"), lambda: one.beside("c").replace("a", b"x", "text/plain")):
        with pytest.raises(StorageDeniedError):
            read()
    assert told == ["denied"] * 3


@pytest.mark.parametrize(
    ("error", "leaf"),
    [((404, "404"), StorageDeniedError), ((503, "503"), StorageUnavailableError)],
)
def test_a_bucket_that_cannot_be_found(error: tuple[int, str], leaf: type[JobError]) -> None:
    client = Client(error)
    client.head_bucket = client.get_object  # type: ignore[attr-defined]
    with pytest.raises(leaf):
        store(client).look()


def test_who_may_not_look_for_a_bucket_may_still_write_it() -> None:
    client = Client((403, "403"))
    client.head_bucket = client.get_object  # type: ignore[attr-defined]
    assert store(client).look() is None


def test_an_object_that_is_gone_is_none() -> None:
    assert store(Client((404, "NoSuchKey"))).get("a") is None
    assert store(Client((400, "KeyTooLongError"))).get("a" * 2000) is None


@pytest.mark.parametrize(
    ("error", "leaf"),
    [
        ((404, "NoSuchBucket"), StorageDeniedError),
        ((403, "AccessDenied"), StorageDeniedError),
        ((503, "SlowDown"), StorageUnavailableError),
    ],
)
def test_any_other_answer_is_an_error(error: tuple[int, str], leaf: type[JobError]) -> None:
    with pytest.raises(leaf):
        store(Client(error)).get("a")
