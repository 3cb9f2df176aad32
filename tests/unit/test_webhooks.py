"""What receivers are told, how it is signed, and what follows from their answers."""

import base64
import json
import threading
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from tasks.errors import BrokerUnavailableError, InvalidRequestError, NodeFailedError
from tasks.request import JobRequest, WebhookOptions
from tasks.result import Attempt, JobResult, ObjectRef, Timings
from workers.ledger.outbox import Notice, Outbox, Taken
from workers.observing import Event, WebhookTried
from workers.web import ForbiddenError, Reply, TooSlowError, UnusableError, Web, WebError
from workers.webhooks import Courier, Notices, Webhooks, signature
from workers.webhooks import courier as module
from workers.webhooks.notices import MOST_BYTES
from workers.webhooks.schedule import (
    KEEP_SECONDS,
    Decision,
    Delivered,
    GivenUp,
    Postponed,
    after_try,
    is_too_late,
)

KEYS = (b"1" * 24, b"2" * 64)
SECRETS = [f"whsec_{base64.b64encode(key).decode()}" for key in KEYS]
WEBHOOK = WebhookOptions(url="https://hooks.example/?key=x")
REQUEST = JobRequest(workflow={}, metadata={"shot": "7"}, webhook=WEBHOOK)
RESULT = JobResult(
    job_id="job",
    prompt_id="p",
    instance="http://gpu",
    worker="w",
    attempts=[],
    metadata={},
    outputs=[],
    manifest=ObjectRef(bucket="b", key="job/manifest.json"),
    timings=Timings(queued=0, staged=0, executed=0, uploaded=0, total=0, nodes={"3": 1.0}),
    values={"5": {"ratio": [float("nan")], "text": ["ü"]}},
)
NOTICES = Notices(signed=True)


def body_of(notice: Notice | None) -> Any:
    assert notice is not None

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    return json.loads(notice.body, parse_constant=refuse)


# What is said


def test_a_notice_is_the_same_for_the_same_event() -> None:
    first, again = (NOTICES.of_end("job", REQUEST, "succeeded", result=RESULT) for _ in range(2))
    assert first is not None
    assert first == replace(again, body=first.body)
    other = NOTICES.of_end("job", REQUEST, "cancelled")
    assert other is not None
    assert other.id != first.id
    assert (first.origin, first.url) == ("https://hooks.example:443", WEBHOOK.url)


def test_a_result_comes_whole_and_as_valid_json() -> None:
    body = body_of(NOTICES.of_end("job", REQUEST, "succeeded", result=RESULT))
    assert body["type"] == "job.succeeded"
    assert body["timestamp"].endswith("Z")
    assert body["data"]["result"]["values"] == {"5": {"ratio": [None], "text": ["ü"]}}
    assert body["data"]["metadata"] == {"shot": "7"}


def test_a_failure_comes_with_type_message_and_attempts() -> None:
    attempt = Attempt(number=1, instance="i", prompt_id="p", error="X: \ud800", seconds=1.0)
    error = NodeFailedError("node 3: half a character \ud800")
    body = body_of(NOTICES.of_end("job", REQUEST, "failed", error=error, attempts=[attempt]))
    assert body["data"]["error"]["type"] == "NodeFailedError"
    assert body["data"]["error"]["message"] == "node 3: half a character ?"
    assert body["data"]["error"]["attempts"][0]["error"] == "X: ?"


@pytest.mark.parametrize(
    ("request_", "result"),
    [
        (REQUEST, RESULT.model_copy(update={"values": {"5": {"text": ["x" * MOST_BYTES]}}})),
        (REQUEST.model_copy(update={"metadata": {"a": "x" * MOST_BYTES}}), RESULT),
    ],
)
def test_too_much_is_cut_to_where_all_of_it_is(request_: JobRequest, result: JobResult) -> None:
    notice = NOTICES.of_end("job", request_, "succeeded", result=result)
    assert notice is not None
    assert len(notice.body) < 1000
    data = body_of(notice)["data"]
    assert data["truncated"] is True
    assert data["result"]["manifest"] == {"bucket": "b", "key": "job/manifest.json"}
    assert "metadata" not in data


def test_only_who_asked_is_told_and_only_of_what() -> None:
    nobody = REQUEST.model_copy(update={"webhook": None})
    assert NOTICES.of_end("job", nobody, "succeeded", result=RESULT) is None
    assert NOTICES.of_start("job", REQUEST, "http://gpu") is None
    assert Notices(signed=False).of_end("job", REQUEST, "failed") is None


@pytest.mark.parametrize(
    "arguments", [{}, {"webhook": None}, {"webhook": {"url": "https://127.1"}}, {"webhook": "x"}]
)
def test_a_refused_request_without_a_webhook_is_not_told_of(arguments: Any) -> None:
    assert NOTICES.of_refusal("job", arguments, InvalidRequestError("x")) is None


def test_a_request_that_is_sent_again_in_a_better_form_is_told_of_anew() -> None:
    # Receivers drop what they had before.
    arguments = {"webhook": WEBHOOK.model_dump()}
    refused = [
        NOTICES.of_refusal("job", arguments, InvalidRequestError(text))
        for text in ("x", "x", "y \ud800")
    ]
    failed = NOTICES.of_end("job", REQUEST, "failed", error=NodeFailedError("z"))
    first, again, other, end = (one.id for one in (*refused, failed) if one is not None)
    assert first == again
    assert len({first, other, end}) == 3


@pytest.mark.parametrize("metadata", [None, 5, [], {"a": 1, "b": "\ud800"}])
def test_a_refused_request_may_have_any_metadata(metadata: Any) -> None:
    arguments = {"webhook": WEBHOOK.model_dump(), "metadata": metadata}
    notice = NOTICES.of_refusal("job", arguments, InvalidRequestError("x"))
    assert body_of(notice)["data"]["metadata"] == {}


def test_a_url_that_leads_nowhere_is_told_of_nothing() -> None:
    # Of a job that expired, say, before anybody looked at its URL.
    nowhere = REQUEST.model_copy(update={"webhook": WebhookOptions(url="https://127.1/?key=x")})
    assert NOTICES.of_end("job", nowhere, "cancelled") is None


def test_the_reasons_of_very_many_attempts_are_cut_as_well() -> None:
    attempt = Attempt(number=1, instance="i", prompt_id="p", error="X: " + "x" * 1000, seconds=1.0)
    error = NodeFailedError("node 3: x")
    notice = NOTICES.of_end("job", REQUEST, "failed", error=error, attempts=[attempt] * 2000)
    told = body_of(notice)["data"]
    assert told["truncated"] is True
    assert told["error"] == {"type": "NodeFailedError", "message": "node 3: x"}


def test_a_host_that_is_an_address_is_named_as_in_urls() -> None:
    request = REQUEST.model_copy(update={"webhook": WebhookOptions(url="https://[2606::1]/x")})
    notice = NOTICES.of_end("job", request, "cancelled")
    assert notice is not None
    assert notice.origin == "https://[2606::1]:443"


# What is put into the outbox


def test_what_finds_no_room_is_said(caplog: pytest.LogCaptureFixture) -> None:
    full: Any = SimpleNamespace(register_script=lambda _: lambda **_: 0)
    webhooks = Webhooks(NOTICES, Outbox(full), lambda: None)
    started = WebhookOptions(url=WEBHOOK.url, events=["job.started"])
    webhooks.tell_start("job", REQUEST.model_copy(update={"webhook": started}), "http://gpu")
    arguments = {"webhook": WEBHOOK.model_dump()}
    webhooks.tell_refusal("job", arguments, InvalidRequestError("x"))
    no_room = "its webhook is not sent: too much waits for https://hooks.example:443"
    assert caplog.text.count(no_room) == 2


# How it is signed


@pytest.mark.parametrize("secret", SECRETS)
def test_each_secret_verifies(secret: str) -> None:
    body = '{"a": "ü"}'
    headers = signature.headers("msg_1", int(time.time()), body, KEYS)
    assert Webhook(secret).verify(body, headers) == {"a": "ü"}
    for name, value in (("webhook-id", "msg_2"), ("webhook-timestamp", "1")):
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(body, {**headers, name: value})


# What follows


def follows(answer: Any, *, age: float = 0, tries: int = 0, failures: int = 0) -> Decision:
    return after_try(answer, age=age, tries=tries, failures=failures, jitter=0.5)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_two_hundred_and_something_is_delivered(status: int) -> None:
    assert follows(Reply(status)) == Delivered()


def test_410_and_closed_addresses_are_for_good() -> None:
    assert isinstance(follows(Reply(410)), GivenUp)
    forbidden = follows(ForbiddenError("leads to x, which is not a public address"))
    assert forbidden == GivenUp(
        "the URL leads to x, which is not a public address (WEBHOOK_ALLOW_HOSTS)"
    )


@pytest.mark.parametrize("status", [103, 302, 400, 404])
def test_what_a_receiver_refuses_says_nothing_of_its_host(status: int) -> None:
    error = f"the receiver answered {status}"
    assert follows(Reply(status)) == Postponed(error, 5.0, host_seconds=None)


@pytest.mark.parametrize(
    "answer",
    [Reply(500), Reply(503), Reply(429), WebError("x"), TooSlowError("x"), UnusableError("x")],
)
def test_a_host_that_fails_is_left_alone_for_a_while(answer: Any) -> None:
    first = follows(answer)
    assert isinstance(first, Postponed)
    assert (first.seconds, first.host_seconds) == (5.0, 5.0)
    later = follows(answer, tries=5, failures=100)
    assert isinstance(later, Postponed)
    assert (later.seconds, later.host_seconds) == (3600.0, 600.0)


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [("60", 60.0), ("999999", 3600.0), ("1", 5.0), ("", 5.0), ("-5", 5.0), ("soon", 5.0)],
)
def test_a_host_gets_the_time_that_it_asks_for_within_bounds(asked: str, seconds: float) -> None:
    decision = follows(Reply(503, asked))
    assert decision == Postponed("the receiver answered 503", seconds, host_seconds=seconds)


def test_after_a_day_it_is_given_up() -> None:
    age, tries = 0.0, 0
    while isinstance(decision := follows(Reply(404), age=age, tries=tries), Postponed):
        age, tries = age + decision.seconds, tries + 1
    assert (decision, tries) == (GivenUp("the receiver answered 404"), 12)
    assert KEEP_SECONDS - 4 * 3600 <= age <= KEEP_SECONDS


@pytest.mark.parametrize(
    ("age", "tries", "failures", "late"),
    [
        (KEEP_SECONDS, 5, 5, False),
        (KEEP_SECONDS + 1, 1, 0, True),
        (KEEP_SECONDS + 1, 0, 1, True),
        # All workers were away.
        (KEEP_SECONDS + 1, 0, 0, False),
    ],
)
def test_what_is_too_old_is_not_even_tried(
    age: float, tries: int, failures: int, late: bool
) -> None:
    assert is_too_late(age, tries, failures) is late


# The courier


class Paper:
    """An outbox and the web in one: what became of what was taken, and what was posted."""

    def __init__(self, answer: Any = None) -> None:
        self.answer = answer or Reply(204)
        self.due: list[Any] = []
        self.noted: list[tuple[Any, ...]] = []
        self.posted: list[tuple[str, bytes, Any]] = []

    def take(self) -> Taken | None:
        one = self.due.pop(0) if self.due else None
        if isinstance(one, Exception):
            raise one
        return cast("Taken | None", one)

    def delivered(self, notice_id: str) -> None:
        self.noted.append(("delivered", notice_id))

    def postpone(self, _: Taken, error: str, seconds: float, host_seconds: float | None) -> None:
        self.noted.append(("postponed", error, seconds, host_seconds))

    def give_up(self, _: Taken, error: str, host_seconds: float | None) -> None:
        self.noted.append(("given up", error, host_seconds))

    def post(self, url: str, content: bytes, headers: Any) -> Reply:
        self.posted.append((url, content, headers))
        if isinstance(self.answer, Exception):
            raise self.answer
        return cast("Reply", self.answer)


def taken(*, age: float = 0.0, tries: int = 0) -> Taken:
    notice = NOTICES.of_end("job", REQUEST, "succeeded", result=RESULT)
    assert notice
    return Taken(notice, 1, age, tries, 0)


def courier(paper: Paper, events: list[Event] | None = None) -> Courier:
    observe = events.append if events is not None else lambda _: None
    return Courier(cast("Outbox", paper), cast("Web", paper), KEYS, observe=observe)


def test_what_is_posted_is_signed_and_noted() -> None:
    paper, events = Paper(), list[Event]()
    courier(paper, events).deliver(taken())
    ((url, content, headers),) = paper.posted
    assert url == WEBHOOK.url
    assert Webhook(SECRETS[1]).verify(content, headers)["type"] == "job.succeeded"
    assert paper.noted == [("delivered", headers["webhook-id"])]
    (event,) = events
    assert isinstance(event, WebhookTried)
    assert (event.outcome, event.status) == ("delivered", 204)


@pytest.mark.parametrize(
    ("answer", "outcome", "status"),
    [
        (Reply(500), "postponed", 500),
        (TooSlowError("took longer than 10 s"), "postponed", None),
        (Reply(410), "given up", 410),
    ],
)
def test_what_is_not_delivered_is_noted_without_the_url(
    answer: Any, outcome: str, status: int | None, caplog: Any
) -> None:
    paper, events = Paper(answer), list[Event]()
    courier(paper, events).deliver(taken())
    assert paper.noted[0][0] == outcome
    (event,) = events
    assert isinstance(event, WebhookTried)
    assert (event.outcome, event.status) == (outcome, status)
    assert "https://hooks.example:443" in caplog.text
    assert "key=x" not in caplog.text


def test_what_is_too_old_is_given_up_unsent() -> None:
    paper = Paper()
    courier(paper).deliver(taken(age=KEEP_SECONDS + 1, tries=1))
    assert paper.posted == []
    assert paper.noted == [("given up", "it has not been delivered within a day", None)]


def test_redis_that_is_away_ends_the_round_and_not_the_courier() -> None:
    paper = Paper()
    paper.due = [BrokerUnavailableError("x"), taken()]
    one = courier(paper)
    one.send_due()
    assert paper.posted == []
    one.send_due()
    one.stop()
    assert paper.due == []


def test_that_redis_does_not_tell_what_is_due_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    paper = Paper()
    one = courier(paper)
    away = BrokerUnavailableError("Redis did not answer (NoPermissionError)")
    for due in ([away], [away], [], [away]):
        paper.due = list(due)
        one.send_due()
    assert caplog.text.count("no webhooks can be sent: Redis did not answer") == 2


def test_a_fault_of_ours_does_not_end_the_courier(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.01)
    paper, done = Paper(), threading.Event()
    paper.due = [KeyError("x"), taken()]
    monkeypatch.setattr(paper, "delivered", lambda _: done.set())
    one = courier(paper)
    one.start()
    assert done.wait(10)
    one.stop()
    assert "a fault of comfyfleet's own" in caplog.text


def test_what_cannot_be_posted_by_a_fault_of_ours_counts_as_tried() -> None:
    paper = Paper(UnicodeError("x"))
    courier(paper).deliver(taken())
    ((outcome, error, *_),) = paper.noted
    assert (outcome, error) == ("postponed", "the URL could not be asked (UnicodeError)")


def test_who_stops_while_all_are_busy_takes_nothing_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    paper, busy, go = Paper(), threading.Semaphore(0), threading.Event()

    def post(*_: Any) -> Reply:
        busy.release()
        go.wait(10)
        return Reply(204)

    monkeypatch.setattr(paper, "post", post)
    paper.due = [taken() for _ in range(module._AT_ONCE + 1)]
    one = courier(paper)
    sending = threading.Thread(target=one.send_due)
    sending.start()
    for _ in range(module._AT_ONCE):
        busy.acquire()
    one.stop()
    go.set()
    sending.join(10)
    assert len(paper.due) == 1
