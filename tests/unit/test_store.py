"""What the store makes of what S3 answers to a question for one object."""

from io import BytesIO
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tasks.errors import JobError, StorageDeniedError, StorageUnavailableError
from workers.storage import ObjectStore


class Client:
    """A bucket with one object, or one that answers with an error."""

    def __init__(self, error: tuple[int, str] | None = None) -> None:
        self._error = error
        self.asked: list[dict[str, Any]] = []

    def get_object(self, **question: Any) -> dict[str, Any]:
        self.asked.append(question)
        if self._error:
            status, code = self._error
            answer = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
            raise ClientError(answer, "GetObject")  # type: ignore[arg-type]
        return {"Body": BytesIO(b"red")}


def store(client: Client) -> ObjectStore:
    return ObjectStore(client, "b")  # type: ignore[arg-type]


def test_an_object_is_asked_for_as_it_is() -> None:
    client = Client()
    assert store(client).get("a") == b"red"
    # No tag is no condition.
    assert client.asked == [{"Bucket": "b", "Key": "a"}]


def test_an_object_is_asked_for_as_it_was() -> None:
    client = Client()
    assert store(client).get("a", etag='"1"') == b"red"
    assert client.asked == [{"Bucket": "b", "Key": "a", "IfMatch": '"1"'}]


@pytest.mark.parametrize("error", [(412, "PreconditionFailed"), (404, "NoSuchKey")])
def test_an_object_that_has_changed_or_is_gone_is_none(error: tuple[int, str]) -> None:
    assert store(Client(error)).get("a", etag='"1"') is None


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
        store(Client(error)).get("a", etag='"1"')
