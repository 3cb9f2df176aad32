"""A job's workflow as its attempts send it: the same each time, whoever makes the attempt."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from tasks.errors import ComfyUIUnavailableError, InvalidWorkflowError
from tasks.request import JobRequest
from workers.execution.job import Job
from workers.execution.preparation import prepare

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
