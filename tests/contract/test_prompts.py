"""`POST /prompt`: what is accepted, under which id and number, and what is refused and how."""

from typing import Any
from uuid import UUID

import pytest

from .comfyui import ComfyUI, Workflow, bars, bars_and_save, colour, invert, save, show, unique

pytestmark = pytest.mark.contract


def rejected(comfyui: ComfyUI, workflow: Any) -> dict[str, Any]:
    response = comfyui.post("/prompt", json={"prompt": workflow})
    assert response.status_code == 400, response.text
    return dict(response.json())


def errors_of(answer: dict[str, Any], node_id: str) -> dict[str, dict[str, Any]]:
    """The errors of a node by the name of the input."""
    errors = answer["node_errors"][node_id]["errors"]
    return {error["extra_info"]["input_name"]: error for error in errors}


def test_prompt_gets_the_id_that_the_client_gives(comfyui: ComfyUI) -> None:
    prompt_id = unique("any text will do ")
    assert comfyui.submit({"1": show("x")}, prompt_id=prompt_id) == prompt_id
    comfyui.finished(prompt_id)


def test_prompt_without_an_id_gets_one(comfyui: ComfyUI) -> None:
    prompt_id = comfyui.submit({"1": show("x")})
    assert str(UUID(prompt_id)) == prompt_id
    comfyui.finished(prompt_id)


def test_queue_item_has_the_prompt_id_second(comfyui: ComfyUI) -> None:
    workflow = bars_and_save(seconds=0.5)
    prompt_id = comfyui.submit(workflow, client_id="me")
    comfyui.running(prompt_id)
    ((number, second, prompt, extra_data, outputs),) = comfyui.queue()["queue_running"]
    assert (second, prompt, outputs) == (prompt_id, workflow, ["2"])
    assert isinstance(number, int)
    assert extra_data["client_id"] == "me"
    comfyui.finished(prompt_id)


def test_history_of_an_unknown_or_unfinished_prompt_is_empty(comfyui: ComfyUI) -> None:
    unknown = comfyui.get(f"/history/{unique()}")
    prompt_id = comfyui.submit(bars_and_save(seconds=0.3))
    unfinished = comfyui.get(f"/history/{prompt_id}")
    assert [(r.status_code, r.json()) for r in (unknown, unfinished)] == [(200, {})] * 2
    comfyui.finished(prompt_id)


def test_same_prompt_id_twice_is_executed_twice_and_remembered_once(comfyui: ComfyUI) -> None:
    prompt_id, client_id = unique(), unique()
    with comfyui.listen(client_id) as listener:
        for _ in range(2):
            comfyui.submit(bars_and_save(), prompt_id=prompt_id, client_id=client_id)
        outputs = []
        for _ in range(2):
            heard = listener.until_done(prompt_id)
            outputs += [m["data"]["output"] for m in heard if m["type"] == "executed"]
    assert len(outputs) == 2
    assert outputs[0] != outputs[1]
    assert comfyui.finished(prompt_id)["outputs"] == {"2": outputs[1]}


def test_extra_data_comes_back_in_queue_and_history(comfyui: ComfyUI) -> None:
    entry = comfyui.run({"1": show("x")}, extra_data={"mine": [1]}, client_id="me")
    assert entry["prompt"][3]["mine"] == [1]
    assert entry["prompt"][3]["client_id"] == "me"


def test_rejected_prompt_uses_up_a_number(comfyui: ComfyUI) -> None:
    first = comfyui.run({"1": show("x")})["prompt"][0]
    rejected(comfyui, {})
    assert comfyui.run({"1": show("x")})["prompt"][0] == first + 2


def test_number_given_by_the_client_is_a_float(comfyui: ComfyUI) -> None:
    response = comfyui.post("/prompt", json={"prompt": {"1": show("x")}, "number": "7"})
    assert response.json()["number"] == 7
    assert isinstance(response.json()["number"], float)
    comfyui.finished(response.json()["prompt_id"])


def test_values_are_converted_in_the_prompt_itself(comfyui: ComfyUI) -> None:
    workflow = bars_and_save(seconds="0", steps="1", width=64.7)
    workflow["2"]["inputs"]["filename_prefix"] = {"__value__": 3}
    prompt = comfyui.run(workflow)["prompt"][2]
    inputs = prompt["1"]["inputs"]
    assert str([inputs["seconds"], inputs["steps"], inputs["width"]]) == "[0.0, 1, 64]"
    assert prompt["2"]["inputs"]["filename_prefix"] == "3"


def test_inputs_and_nodes_that_nothing_needs_are_accepted(comfyui: ComfyUI) -> None:
    workflow = {"1": bars(unknown=3), "2": save("1"), "9": bars(steps=0)}
    entry = comfyui.run(workflow)
    assert entry["status"]["completed"]
    assert entry["prompt"][2] == workflow


@pytest.mark.parametrize(
    ("inputs", "kind", "details"),
    [
        ({"steps": 0}, "value_smaller_than_min", "steps"),
        ({"seconds": -1}, "value_smaller_than_min", "seconds"),
        ({"width": 9000}, "value_bigger_than_max", "width"),
        ({"mode": "no"}, "value_not_in_list", "mode: 'no' not in ['ok', 'error', 'oom']"),
        (
            {"steps": "x"},
            "invalid_input_type",
            "steps, x, invalid literal for int() with base 10: 'x'",
        ),
        (
            {"seconds": None},
            "invalid_input_type",
            "seconds, None, float() argument must be a string or a real number, not 'NoneType'",
        ),
        ({"steps": [1, 2, 3]}, "bad_linked_input", "steps"),
    ],
)
def test_bad_value_is_refused(
    comfyui: ComfyUI, inputs: dict[str, Any], kind: str, details: str
) -> None:
    answer = rejected(comfyui, bars_and_save(**inputs))
    (name,) = inputs
    assert answer["error"]["type"] == "prompt_outputs_failed_validation"
    assert answer["node_errors"]["1"]["dependent_outputs"] == ["2"]
    error = errors_of(answer, "1")[name]
    assert (error["type"], error["details"]) == (kind, details)


def test_missing_inputs_are_told_all_at_once(comfyui: ComfyUI) -> None:
    workflow = bars_and_save()
    del workflow["1"]["inputs"]["mode"], workflow["1"]["inputs"]["steps"]
    errors = errors_of(rejected(comfyui, workflow), "1")
    assert {name: error["type"] for name, error in errors.items()} == {
        "mode": "required_input_missing",
        "steps": "required_input_missing",
    }


def test_long_list_of_allowed_values_is_not_told(comfyui: ComfyUI) -> None:
    sampler = {"class_type": "KSampler", "inputs": {"sampler_name": "x"}}
    error = errors_of(rejected(comfyui, {"1": sampler, "2": show(["1", 0])}), "1")["sampler_name"]
    assert error["details"].startswith("sampler_name: 'x' not in (list of length ")
    assert error["extra_info"]["input_config"] is None


@pytest.mark.parametrize(
    ("link", "kind", "details"),
    [
        (["9", 0], "KeyError", "'9'"),
        (["1", 1], "IndexError", "tuple index out of range"),
        (["1", "0"], "TypeError", "tuple indices must be integers or slices, not str"),
    ],
)
def test_link_to_nowhere_is_refused(
    comfyui: ComfyUI, link: list[Any], kind: str, details: str
) -> None:
    output = {"class_type": "SaveImage", "inputs": {"images": link, "filename_prefix": "x"}}
    answer = rejected(comfyui, {"1": colour(), "2": output})
    assert answer["error"]["details"] == f"Exception when validating node: {details}"
    (error,) = answer["node_errors"]["2"]["errors"]
    assert error["type"] == "exception_during_validation"
    assert error["extra_info"]["exception_type"] == kind


def test_link_to_nowhere_deeper_down_is_told_of_the_node_that_has_it(comfyui: ComfyUI) -> None:
    answer = rejected(comfyui, {"1": invert("9"), "2": save("1")})
    assert list(answer["node_errors"]) == ["1"]
    error = errors_of(answer, "1")["images"]
    assert error["type"] == "exception_during_inner_validation"
    assert error["extra_info"]["linked_node"] == ["1", 0]


def test_link_of_the_wrong_type_is_refused(comfyui: ComfyUI) -> None:
    workflow = {"1": colour(), "2": save("1")}
    workflow["2"]["inputs"]["filename_prefix"] = ["1", 0]
    error = errors_of(rejected(comfyui, workflow), "2")["filename_prefix"]
    assert error["type"] == "return_type_mismatch"
    assert error["extra_info"]["received_type"] == "IMAGE"


def test_cycle_is_refused_without_a_word_on_where_it_is(comfyui: ComfyUI) -> None:
    answer = rejected(comfyui, {"1": invert("2"), "2": invert("1"), "3": save("1")})
    assert answer["error"]["type"] == "prompt_outputs_failed_validation"
    assert answer["node_errors"] == {}


def test_cycle_that_no_output_needs_is_accepted(comfyui: ComfyUI) -> None:
    entry = comfyui.run({"1": show("x"), "2": invert("3"), "3": invert("2")})
    assert entry["status"]["completed"]


def test_two_outputs_share_the_errors_of_a_node(comfyui: ComfyUI) -> None:
    workflow = {"1": bars(steps=0), "2": invert("1"), "3": save("1"), "4": save("2")}
    answer = rejected(comfyui, workflow)
    assert list(answer["node_errors"]) == ["1"]
    assert sorted(answer["node_errors"]["1"]["dependent_outputs"]) == ["3", "4"]


def test_one_good_output_among_bad_ones_is_accepted_and_runs(comfyui: ComfyUI) -> None:
    workflow = {"1": show("good"), "2": save("77")}
    response = comfyui.post("/prompt", json={"prompt": workflow})
    assert response.status_code == 200
    assert list(response.json()["node_errors"]) == ["2"]
    entry = comfyui.finished(response.json()["prompt_id"])
    assert entry["prompt"][4] == ["1"]
    assert entry["outputs"] == {"1": {"text": ["good"]}}


@pytest.mark.parametrize("workflow", ["text", 3, None, [1], {"1": 3}])
def test_prompt_that_is_no_object_of_objects_is_a_500(comfyui: ComfyUI, workflow: Any) -> None:
    response = comfyui.post("/prompt", json={"prompt": workflow})
    assert response.status_code == 500
    assert response.headers["content-type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize("body", [b"", b"null", b"3", b"{", b"\xff"])
def test_body_that_is_no_object_is_a_500(comfyui: ComfyUI, body: bytes) -> None:
    response = comfyui.post("/prompt", data=body)
    assert response.status_code == 500
    assert response.text == "500 Internal Server Error\n\nServer got itself in trouble"


@pytest.mark.parametrize("body", [{}, [], "text"])
def test_body_without_a_prompt_is_refused(comfyui: ComfyUI, body: Any) -> None:
    response = comfyui.post("/prompt", json=body)
    assert (response.status_code, response.json()["error"]["type"]) == (400, "no_prompt")


def test_prompt_without_output_nodes_is_refused(comfyui: ComfyUI) -> None:
    workflow: Workflow = {"1": colour()}
    assert rejected(comfyui, workflow)["error"]["type"] == "prompt_no_outputs"
