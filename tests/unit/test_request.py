from typing import Any

import pytest

from tasks import JobRequest, WebhookOptions
from tasks.errors import InvalidRequestError
from tasks.request import parse_request

WORKFLOW = {"1": {"class_type": "SaveImage", "inputs": {}}}


def test_only_the_workflow_is_needed() -> None:
    request = parse_request((), {"workflow": WORKFLOW})
    assert request == JobRequest(workflow=WORKFLOW)
    assert request.output.include_temp is False


def test_all_fields_of_the_contract() -> None:
    request = parse_request(
        (),
        {
            "workflow": WORKFLOW,
            "params": {"1.text": "a cat"},
            "inputs": {"a.png": "data:,x"},
            "output": {
                "prefix": "/shots/7/",
                "presign_seconds": 60,
                "include_temp": True,
                "thumbnail": 256,
                "strip_metadata": True,
            },
            "timeout_seconds": 30,
            "metadata": {"customer": "7"},
        },
    )
    assert request.output.prefix == "shots/7"
    assert request.timeout_seconds == 30


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({}, "argument 'workflow' is missing"),
        ({"workflow": "{}"}, "argument 'workflow': found '{}', expected a JSON object"),
        ({"workflow": None}, "argument 'workflow': found None, expected a JSON object"),
        ({"worfklow": WORKFLOW}, "unknown argument 'worfklow', did you mean 'workflow'?"),
        ({"workflow": WORKFLOW, "xyz": 1}, "unknown argument 'xyz'"),
        (
            {"workflow": WORKFLOW, "output": {"presign": 1}},
            "unknown argument 'output.presign', did you mean 'presign_seconds'?",
        ),
        (
            {"workflow": WORKFLOW, "output": {"presign_seconds": 604_801}},
            "argument 'output.presign_seconds': found 604801, "
            "expected less than or equal to 604800",
        ),
        (
            {"workflow": WORKFLOW, "output": {"prefix": "a/../../b"}},
            "argument 'output.prefix': found 'a/../../b', "
            "expected folder names joined by single slashes, without . or ..",
        ),
        (
            {"workflow": WORKFLOW, "output": {"prefix": "a\0b"}},
            "argument 'output.prefix': found 'a\\x00b', "
            "expected at most 512 bytes of printable characters",
        ),
        (
            {"workflow": WORKFLOW, "output": {"thumbnail": 15}},
            "argument 'output.thumbnail': found 15, expected greater than or equal to 16",
        ),
        (
            {"workflow": WORKFLOW, "output": {"thumbnail": 2049}},
            "argument 'output.thumbnail': found 2049, expected less than or equal to 2048",
        ),
        (
            {"workflow": WORKFLOW, "output": {"thumbnail": True}},
            "argument 'output.thumbnail': found True, expected a valid integer",
        ),
        (
            {"workflow": WORKFLOW, "output": {"strip_metadata": "yes"}},
            "argument 'output.strip_metadata': found 'yes', expected a valid boolean",
        ),
        (
            {"workflow": WORKFLOW, "timeout_seconds": 0},
            "argument 'timeout_seconds': found 0, expected greater than 0",
        ),
        (
            {"workflow": WORKFLOW, "timeout_seconds": "5"},
            "argument 'timeout_seconds': found '5', expected a valid number",
        ),
        (
            {"workflow": WORKFLOW, "metadata": {"a": 1}},
            "argument 'metadata.a': found 1, expected a valid string",
        ),
    ],
)
def test_a_wrong_argument_is_named(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse_request((), arguments)
    assert sentence in caught.value.message


def test_a_long_value_is_cut() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse_request((), {"workflow": "x" * 1_000_000})
    assert len(caught.value.message) < 200


def test_positional_arguments_are_explained() -> None:
    with pytest.raises(InvalidRequestError, match="passed by name"):
        parse_request((WORKFLOW,), {})


@pytest.mark.parametrize(
    ("webhook", "sentence"),
    [
        ("https://a", "argument 'webhook': found 'https://a', expected a JSON object"),
        ({}, "argument 'webhook.url' is missing"),
        ({"url": "https://a", "event": []}, "'webhook.event', did you mean 'events'?"),
        ({"url": "ftp://a"}, "argument 'webhook.url': found 'ftp://a', expected an https:// URL"),
        ({"url": "https://"}, "expected an https:// URL with a host"),
        ({"url": "https://["}, "expected an https:// URL with a host"),
        ({"url": "https://a:0"}, "expected an https:// URL with a host"),
        ({"url": "https://u:hidden@a"}, "without user and password"),
        ({"url": "https://a/b c"}, "without spaces or line breaks"),
        ({"url": "https://a/" + "b" * 2048}, "at most 2,048 characters"),
        ({"url": "https://a\ud800"}, "expected whole characters"),
        ({"url": "https://a", "events": []}, "argument 'webhook.events': found []"),
        ({"url": "https://a", "events": ["job.done"]}, "'webhook.events.0': found 'job.done'"),
    ],
)
def test_a_webhook_that_is_none(webhook: Any, sentence: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse_request((), {"workflow": WORKFLOW, "webhook": webhook})
    assert sentence in caught.value.message
    assert "hidden" not in caught.value.message


def test_a_webhook_is_told_of_the_end_unless_it_asks_for_more() -> None:
    webhook = parse_request((), {"workflow": WORKFLOW, "webhook": {"url": "https://a"}}).webhook
    assert webhook == WebhookOptions(url="https://a")
    assert webhook.events == ["job.succeeded", "job.failed", "job.cancelled"]
