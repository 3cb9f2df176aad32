"""A job's workflow as its attempts send it: the same each time, whoever makes the attempt."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from tasks.errors import ComfyUIUnavailableError, InvalidWorkflowError, NodeForbiddenError
from tasks.request import JobRequest
from workers.execution.job import Job
from workers.execution.node_policy import NodePolicy
from workers.execution.preparation import is_sound, prepare

TEXT = ["STRING", {"dynamicPrompts": True}]
OBJECT_INFO = {
    "Prompt": {"input": {"required": {"text": TEXT}}, "output": ["STRING"]},
    "SaveImage": {"input": {"required": {"filename_prefix": ["STRING", {}]}}, "output": []},
}
CHOICES = " ".join("{day|night|dusk|dawn}" for _ in range(20))
EXPORT = {
    "nodes": [
        {"id": 1, "type": "Prompt", "widgets_values": [CHOICES]},
        {"id": 2, "type": "SaveImage", "widgets_values": ["%date:yyyy-MM-dd_hhmmss%"]},
    ],
    "links": [],
}
AT = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC).timestamp()


def job(workflow: dict[str, Any], **known: Any) -> Job:
    request = JobRequest(workflow=workflow)
    where = {"instance": "http://a", "client_id": "c", "folder": "f"}
    return Job(**{"id": "job", "request": request, **where, "enqueued_at": AT, **known})


def converted(
    one: Job, object_info: Callable[[], Any] = lambda: OBJECT_INFO, *, max_bytes: int = 10_000
) -> Any:
    return prepare(one.request, one.id, one.enqueued_at, object_info, max_bytes=max_bytes)


def refusal(workflow: dict[str, Any], *, max_bytes: int = 10_000) -> str:
    with pytest.raises(InvalidWorkflowError) as caught:
        converted(job(workflow), max_bytes=max_bytes)
    return caught.value.message


def test_what_is_in_api_format_stays_as_it_is_and_no_server_is_asked() -> None:
    workflow = {"3": {"class_type": "KSampler", "inputs": {}}}

    def ask() -> Any:
        raise ComfyUIUnavailableError("x")

    assert converted(job(workflow), ask) == workflow
    with pytest.raises(ComfyUIUnavailableError):
        converted(job(EXPORT), ask)


def test_chance_and_clock_are_the_same_for_all_attempts() -> None:
    first = converted(job(EXPORT))
    assert first["2"]["inputs"] == {"filename_prefix": "2026-03-04_050607"}
    chosen = first["1"]["inputs"]["text"].split()
    assert len(chosen) == 20
    assert set(chosen) <= {"day", "night", "dusk", "dawn"}
    assert converted(replace(job(EXPORT), number=3, instance="http://b")) == first
    assert converted(job(EXPORT, id="another"))["1"] != first["1"]


@pytest.mark.parametrize(
    ("workflow", "sentence"),
    [
        ({}, "the workflow is empty"),
        ({"nodes": [{"id": 1, "type": "Note"}]}, "the workflow is empty"),
        ({"nodes": [5]}, "the export: found 5, expected a node"),
        ({"nodes": [{"id": 1, "type": "Promt"}]}, "does not know its class Promt"),
        ({"3": {"inputs": {}}}, "node 3: has no class_type"),
    ],
)
def test_what_is_no_workflow_is_refused(workflow: dict[str, Any], sentence: str) -> None:
    assert sentence in refusal(workflow)


def test_the_export_itself_has_a_limit() -> None:
    # Whatever of it is sent in the end.
    export = {**EXPORT, "extra": {"notes": "x" * 10_000}}
    assert "(WORKFLOW_MAX_BYTES)" in refusal(export)
    assert converted(job(export), max_bytes=20_000)


def test_what_an_export_stands_for_has_the_same_limit() -> None:
    inner = {"id": 1, "type": "Prompt", "widgets_values": ["x" * 1000]}
    subgraph = {"id": "S", "nodes": [inner], "links": []}
    nodes = [{"id": index, "type": "S"} for index in range(50)]
    export = {"nodes": nodes, "links": [], "definitions": {"subgraphs": [subgraph]}}
    assert "(WORKFLOW_MAX_BYTES)" in refusal(export)
    assert len(converted(job(export), max_bytes=100_000)) == 50


# What is allowed


def forbidden(workflow: dict[str, Any], **policy: Any) -> str:
    one = job(workflow)
    with pytest.raises(NodeForbiddenError) as caught:
        prepare(
            *(one.request, one.id, one.enqueued_at, lambda: OBJECT_INFO),
            max_bytes=10_000,
            nodes_allowed=NodePolicy(**policy),
        )
    return caught.value.message


USING = {
    "3": {"class_type": "LoadImage", "inputs": {}},
    "7": {"class_type": "Fetch [URL]", "inputs": {}},
}


@pytest.mark.parametrize(
    ("policy", "sentence"),
    [
        ({"denied": ["LoadImage"]}, "node 3 (LoadImage): its class is not allowed here"),
        ({"denied": ["Load*"]}, "node 3 (LoadImage): its class is not allowed here"),
        ({"denied": ["*[[]URL]"]}, "node 7 (Fetch [URL]): its class is not allowed here"),
        ({"denied": ["Fetch [URL]"]}, "node 7 (Fetch [URL]): its class is not allowed here"),
        ({"allowed": ["Load?mage"]}, "node 7 (Fetch [URL]): its class is not among those"),
        ({"allowed": ["*"], "denied": ["Fetch*"]}, "node 7 (Fetch [URL]): its class is not allow"),
        # Servers tell them apart, too.
        ({"allowed": ["loadimage"]}, "node 3 (LoadImage): its class is not among those"),
    ],
)
def test_a_class_that_is_not_allowed_is_named(policy: Any, sentence: str) -> None:
    assert sentence in forbidden(USING, **policy)


def test_what_is_allowed_and_not_denied_is_prepared() -> None:
    policy = NodePolicy(allowed=["Load*", "Fetch [URL]"], denied=["Save*"])
    policy.check(USING)
    NodePolicy().check(USING)


def test_what_an_export_stands_for_is_checked_and_what_it_leaves_out_is_not() -> None:
    inner = {"id": 1, "type": "Prompt", "widgets_values": ["x"]}
    subgraph = {"id": "S", "nodes": [inner], "links": []}
    export = {
        "nodes": [{"id": 5, "type": "S"}],
        "links": [],
        "definitions": {"subgraphs": [subgraph]},
    }
    assert "(Prompt): its class is not allowed" in forbidden(export, denied=["Prompt"])
    muted = {"nodes": [*EXPORT["nodes"], {"id": 9, "type": "Prompt", "mode": 2}], "links": []}
    muted["nodes"] = [node for node in muted["nodes"] if node["id"] != 1]
    prepared = prepare(
        *(JobRequest(workflow=muted), "job", AT, lambda: OBJECT_INFO),
        max_bytes=10_000,
        nodes_allowed=NodePolicy(denied=["Prompt"]),
    )
    assert list(prepared) == ["2"]


def test_what_a_server_has_taken_already_is_not_judged_again() -> None:
    prepared = prepare(
        *(JobRequest(workflow=USING), "job", AT, dict),
        max_bytes=10_000,
        nodes_allowed=NodePolicy(denied=["*"]),
        is_submitted=True,
    )
    assert prepared == USING


def test_what_no_server_could_run_is_known_without_one() -> None:
    assert is_sound(USING, 10_000)
    assert is_sound(EXPORT, 10_000)
    assert not is_sound(USING, 10)
    assert not is_sound({}, 10_000)
    assert not is_sound({"1": {"inputs": {}}}, 10_000)
