from typing import Any

import pytest

from tasks.errors import InvalidWorkflowError
from tasks.workflow import check_size, check_workflow, is_link, node_name

TEXT_TO_IMAGE = {
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a dog", "clip": ["4", 1]}},
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "x.safetensors"}},
}


def refusal(workflow: dict[str, Any], max_bytes: int = 10_000) -> str:
    def check() -> None:
        check_workflow(workflow)
        check_size(workflow, max_bytes)

    with pytest.raises(InvalidWorkflowError) as caught:
        check()
    assert "\n" not in caught.value.message
    return caught.value.message


def test_a_sound_workflow_passes() -> None:
    check_workflow(TEXT_TO_IMAGE)
    check_size(TEXT_TO_IMAGE, 10_000)


@pytest.mark.parametrize(
    ("workflow", "sentence"),
    [
        ({}, "the workflow is empty: it has no node"),
        ({"nodes": [], "links": []}, "the workflow is empty: it has no node"),
        ({"nodes": [float("nan")]}, "the export of ComfyUI's UI: found NaN"),
        ({"3": 5}, "node 3: found 5, expected an object"),
        ({"3": {"inputs": {}}}, "node 3: has no class_type"),
        ({"3": {"class_type": None, "inputs": {}}}, "node 3: has no class_type"),
        ({"3": {"class_type": "KSampler"}}, "node 3 (KSampler): has no inputs object"),
        (
            {"3": {"class_type": "KSampler", "inputs": {"sizes": [{"a": float("nan")}]}}},
            "node 3 (KSampler), input sizes: found NaN or Infinity, which JSON does not have",
        ),
        (
            {"3": {"class_type": "VAEDecode", "inputs": {"samples": ["9", 0]}}},
            "node 3 (VAEDecode), input samples: links to node 9, which the workflow does not have",
        ),
    ],
)
def test_what_is_no_workflow_is_refused(workflow: dict[str, Any], sentence: str) -> None:
    assert sentence in refusal(workflow)


def test_a_deep_workflow_is_refused() -> None:
    deep: list[Any] = []
    for _ in range(900):
        deep = [deep]
    message = refusal({"3": {"class_type": "KSampler", "inputs": {"sizes": deep}}})
    assert message == "node 3 (KSampler), input sizes: is nested deeper than 100 levels"


def test_a_large_workflow_is_refused_with_its_largest_part() -> None:
    big = {**TEXT_TO_IMAGE, "9": {"class_type": "LoadBase64", "inputs": {"data": "x" * 20_000_000}}}
    message = refusal(big, 10_000_000)
    assert "has 20.0 MB, at most 10.0 MB are allowed" in message
    assert "the largest part is node 9 (LoadBase64), input data, with 20.0 MB" in message


def test_an_export_passes_and_has_a_size_as_well() -> None:
    node = {"id": 9, "type": "LoadBase64", "widgets_values": ["x" * 2_000_000]}
    export = {"nodes": [node, {"id": 3, "type": "KSampler"}, None], "links": []}
    check_workflow(export)
    check_size(export, 3_000_000)
    assert "the largest part is node 9 (LoadBase64), with 2.0 MB" in refusal(export, 1_000_000)


@pytest.mark.parametrize("value", [["4", 1], ["4", 1.0]])
def test_links(value: object) -> None:
    assert is_link(value)


@pytest.mark.parametrize("value", ["4", 4, ["4"], [4, 1], ["4", "1"], ["4", 1, 2], {"4": 1}, None])
def test_values(value: object) -> None:
    assert not is_link(value)


def test_node_names() -> None:
    assert node_name(TEXT_TO_IMAGE, "4") == "node 4 (CheckpointLoaderSimple)"
    assert node_name(TEXT_TO_IMAGE, "77") == "node 77"
