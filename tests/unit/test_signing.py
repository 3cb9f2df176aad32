"""Signatures of messages: of what, under which id, and by whom."""

from typing import Any

import pytest
from celery import Celery, chain, group
from celery.signals import before_task_publish
from kombu.serialization import dumps

from tasks import TASK_NAME, enqueue, enqueue_batch
from tasks.errors import InvalidRequestError
from tasks.signing import HEADER, is_signed, sign_published, signature

SECRET, OTHER = "s" * 32, "o" * 32
BODY = dumps([[], {"workflow": {"1": {"class_type": "ü"}}}, {}], serializer="json")[2]
SIGNED = signature(SECRET, "job", BODY)
WORKFLOW = {"1": {"class_type": "SaveImage", "inputs": {}}}


def test_what_is_signed_is_believed_whoever_of_several_signed_it() -> None:
    assert is_signed([SECRET], "job", BODY, SIGNED)
    assert is_signed([OTHER, SECRET], "job", BODY.encode(), SIGNED)


@pytest.mark.parametrize(
    ("job_id", "body", "found"),
    [
        ("another", BODY, SIGNED),
        ("job", BODY.replace("1", "2"), SIGNED),
        ("job", BODY, signature(OTHER, "job", BODY)),
        ("job", BODY, SIGNED.removeprefix("v1,")),
        ("job", BODY, SIGNED.replace("v1", "v2")),
        ("job", BODY, ""),
        ("job", BODY, None),
        ("job", BODY, [SIGNED]),
        ("job", BODY, "v1,\ud800"),
    ],
)
def test_nothing_else_is(job_id: str, body: str, found: Any) -> None:
    assert not is_signed([SECRET], job_id, body, found)


def test_a_part_of_the_body_does_not_pass_for_a_part_of_the_id() -> None:
    first = signature(SECRET, "job", "a\nb")
    assert first == signature(SECRET, "job\na", "b")
    assert not is_signed([SECRET], "job\na", "b", first)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Any:
    """An app, and whether each message that it has sent is signed with the secret as it went."""
    monkeypatch.setenv("MESSAGE_SECRET", f"{SECRET},{OTHER}")
    app = Celery(broker="memory://", backend="cache+memory://", set_as_current=False)
    found: list[bool] = []

    def look(body: Any, headers: Any, **_: Any) -> None:
        text = dumps(body, serializer="json")[2]
        found.append(is_signed([SECRET], headers["id"], text, headers.get(HEADER)))

    # After ours: in the order in which they were connected.
    before_task_publish.connect(look, weak=False)
    yield app, found
    before_task_publish.disconnect(look)


def test_all_that_a_producer_sends_is_signed(sent: Any) -> None:
    app, found = sent
    enqueue(WORKFLOW, celery=app)
    enqueue_batch(WORKFLOW, [{}, {}], celery=app)
    one = app.signature(TASK_NAME, kwargs={"workflow": WORKFLOW}, immutable=True)
    chain(one, one, app=app).apply_async()
    group(one, one, app=app).apply_async()
    app.send_task("another.task")
    assert found == [True] * 6 + [False]


def test_an_id_that_cannot_be_signed_is_not_enqueued(sent: Any) -> None:
    app, found = sent
    with pytest.raises(InvalidRequestError, match=r"^job_id: found 'a\\nb', expected one without"):
        enqueue(WORKFLOW, job_id="a\nb", celery=app)
    assert found == []


def test_without_a_secret_nothing_is_signed() -> None:
    headers: dict[str, Any] = {"id": "job"}
    sign_published(([], {}, {}), headers)
    assert HEADER not in headers
