from typing import Any

import pytest

from tests.recordings import VERSIONS, exchanges
from workers.comfyui.rejection import describe_rejection


def sentences(version: str) -> list[str]:
    return [
        describe_rejection(sent["prompt"], answer)
        for request, sent, answer in exchanges(version, "rejected prompts")
        if request == "POST /prompt"
        and isinstance(sent, dict)
        and isinstance(sent.get("prompt"), dict)
        and isinstance(answer, dict)
    ]


@pytest.mark.parametrize("version", VERSIONS)
def test_recorded_rejections_name_node_input_and_reason(version: str) -> None:
    start = "ComfyUI refuses the workflow: "
    empty, no_class, no_such_node, no_such_link, wrong_choice, out_of_range, partial = (
        sentence.removeprefix(start) for sentence in sentences(version)
    )
    assert empty == "Prompt has no outputs"
    assert no_class.startswith("node 1: ")
    assert no_such_node.startswith("node 1 (NoSuchNode): ")
    assert no_such_link == "node 1 (SaveImage): Exception when validating node ('9')"
    assert wrong_choice == (
        "node 1 (CheckpointLoaderSimple), input ckpt_name: Value not in list "
        "(ckpt_name: 'missing.safetensors' not in []); "
        "node 2 (VAEDecode), input samples: Return type mismatch between linked nodes "
        "(samples, received_type(MODEL) mismatch input_type(LATENT))"
    )
    assert "node 1 (BarsRender), input steps: Value 0 smaller than min of 1; " in out_of_range
    assert "node 1 (BarsRender), input width: Failed to convert" in out_of_range
    assert partial == "node 3 (SaveImage): Exception when validating node ('77')"


def test_many_faults_are_counted_and_long_ones_cut() -> None:
    errors = [
        {"message": "Value not in list", "details": "x" * 9000, "extra_info": {"input_name": "a"}}
    ]
    body = {"node_errors": {str(n): {"errors": errors} for n in range(9)}}
    sentence = describe_rejection({}, body)
    assert sentence.endswith("; and 6 more")
    assert len(sentence) < 1200


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        "busy",
        {},
        {"error": None, "node_errors": 5},
        {"error": "x", "node_errors": []},
        {"error": {"message": None}, "node_errors": {"1": None}},
        {"error": {}, "node_errors": {"1": {"errors": [None, "x"]}}},
        {"error": {"extra_info": []}},
    ],
)
def test_bodies_of_another_form_still_give_a_sentence(body: Any) -> None:
    assert describe_rejection({}, body).startswith("ComfyUI refuses the workflow: ")
