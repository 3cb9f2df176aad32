"""What a class of `/object_info` takes: each form of its description, each kind of value."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from workers.nodes.inputs import InputSpec, fault_in, input_names, input_spec

RECORDED = Path(__file__).parents[1] / "fixtures" / "convert" / "object_info.json"


@pytest.fixture(scope="module")
def object_info() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(RECORDED.read_text())
    return content


def of(description: object, name: str = "x", class_name: str = "Any") -> InputSpec:
    node_class = {"name": class_name, "input": {"required": {name: description}}}
    spec = input_spec(node_class, name)
    assert spec is not None
    return spec


def recorded(object_info: Mapping[str, Any], address: str) -> InputSpec:
    class_name, name = address.split(".")
    spec = input_spec(object_info[class_name], name)
    assert spec is not None
    return spec


def test_every_recorded_input_is_read(object_info: dict[str, Any]) -> None:
    specs = [
        input_spec(node_class, name)
        for node_class in object_info.values()
        for name in input_names(node_class)
    ]
    assert len(specs) > 2500
    assert all(spec is not None and spec.types for spec in specs)


def test_the_default_of_every_recorded_input_fits_it(object_info: dict[str, Any]) -> None:
    # One of them is none of the choices beside it.
    faults = {
        f"{class_name}.{name}": fault
        for class_name, node_class in object_info.items()
        for name in input_names(node_class)
        if (spec := input_spec(node_class, name)) and spec.options.get("default") is not None
        if (fault := fault_in(spec.options["default"], spec))
    }
    assert faults == {}


@pytest.mark.parametrize(
    ("address", "value"),
    [
        ("KSampler.seed", 2**64 - 1),
        ("KSampler.seed", "5"),
        ("KSampler.seed", 5.7),
        ("KSampler.seed", {"__value__": 3}),
        ("KSampler.cfg", 7),
        ("KSampler.cfg", 7.123456),
        ("KSampler.sampler_name", "euler"),
        ("CLIPTextEncode.text", 12),
        ("LatentConcat.dim", "-x"),
        ("LoadImage.image", "uploaded later.png"),
        ("LoadVideo.file", "uploaded later.mp4"),
        ("LoadImageOutput.image", "made later.png"),
        ("LoadLatent.latent", "made later.latent"),
        ("PreviewAny.source", [1, 2, 3]),
        ("SaveLoRANode.steps", 3),
    ],
)
def test_what_servers_take_has_no_fault(
    object_info: dict[str, Any], address: str, value: object
) -> None:
    assert fault_in(value, recorded(object_info, address)) is None


@pytest.mark.parametrize(
    ("address", "value", "fault"),
    [
        ("KSampler.steps", 0, "found 0, expected a whole number from 1 to 10000"),
        ("KSampler.steps", None, "found None, expected a whole number from 1 to 10000"),
        ("KSampler.steps", "5.5", "found '5.5', expected a whole number from 1 to 10000"),
        ("KSampler.cfg", 100.5, "found 100.5, expected a number from 0.0 to 100.0"),
        ("KSampler.cfg", "high", "found 'high', expected a number from 0.0 to 100.0"),
        (
            "KSampler.sampler_name",
            "eular",
            "found 'eular', expected one of its 42 choices, did you mean 'euler'?",
        ),
        (
            "KSamplerAdvanced.add_noise",
            "maybe",
            "found 'maybe', expected one of 'enable', 'disable'",
        ),
        (
            "CheckpointLoaderSimple.ckpt_name",
            "x.safetensors",
            "found 'x.safetensors', expected one of its choices, of which this server has none",
        ),
    ],
)
def test_what_servers_refuse_has_a_fault(
    object_info: dict[str, Any], address: str, value: object, fault: str
) -> None:
    assert fault_in(value, recorded(object_info, address)) == fault


def test_an_input_that_the_class_does_not_have(object_info: dict[str, Any]) -> None:
    assert input_spec(object_info["KSampler"], "sed") is None
    # The server fills these in itself.
    assert input_spec(object_info["SaveImage"], "prompt") is None
    assert input_spec({}, "seed") is None
    assert input_spec({"input": {"required": None}}, "seed") is None


def test_optional_inputs_are_told_apart(object_info: dict[str, Any]) -> None:
    assert recorded(object_info, "KSampler.seed").is_required
    assert not recorded(object_info, "ImageStitch.image2").is_required


def test_inputs_that_a_choice_brings_along() -> None:
    inner = {"required": {"width": ["INT", {"min": 8}]}}
    resize = ["COMFY_DYNAMICCOMBO_V3", {"options": [{"key": "to size", "inputs": inner}]}]
    node_class = {"input": {"required": {"how": resize}}}
    how, width = input_spec(node_class, "how"), input_spec(node_class, "how.width")
    assert how is not None
    assert width is not None
    assert how.choices == ("to size",)
    assert fault_in(4, width) == "found 4, expected a whole number of at least 8"
    assert input_spec(node_class, "how.height") is None
    formats = {"formats": {"video/h264-mp4": [["crf", "INT", {"max": 51}]]}}
    crf = input_spec({"input": {"required": {"format": [["video/h264-mp4"], formats]}}}, "crf")
    assert crf is not None
    assert fault_in(60, crf) == "found 60, expected a whole number of at most 51"


def test_inputs_whose_names_are_made_up_as_they_come() -> None:
    node_class = {"input": {"required": {"images": ["COMFY_AUTOGROW_V3", {"template": {}}]}}}
    grown, group = input_spec(node_class, "images.image0"), input_spec(node_class, "images")
    assert grown is not None
    assert fault_in("anything", grown) is None
    assert group is not None
    # No workflow has the group itself.
    assert not group.is_required


def test_inputs_whose_names_are_made_up_in_a_choice() -> None:
    inner = {"required": {"images": ["COMFY_AUTOGROW_V3", {"template": {}}]}}
    how = ["COMFY_DYNAMICCOMBO_V3", {"options": [{"key": "all", "inputs": inner}]}]
    assert input_spec({"input": {"required": {"how": how}}}, "how.images.image0") is not None


def test_several_types_take_what_one_of_them_takes() -> None:
    either = of(["INT,FLOAT", {"min": 0}])
    assert fault_in(1.5, either) is None
    assert fault_in("x", either) == "found 'x', expected a whole number of at least 0"
    assert fault_in("x", of(["INT,STRING", {}])) is None
    assert fault_in("x", of(["*", {}])) is None


def test_several_choices_at_once() -> None:
    many = of(["COMBO", {"options": ["a", "b"], "multi_select": {}, "multiselect": True}])
    assert fault_in(["a", "b"], many) is None
    assert fault_in(["a", "c"], many) == "found 'c', expected one of 'a', 'b'"


@pytest.mark.parametrize(
    "description",
    [
        ["COMBO", {}],
        ["COMBO", {"options": [], "remote": {"route": "/models"}}],
        [["a.png"], {}],
        [[], {"video_upload": True}],
        [[], {"audio_upload": True}],
        [[], {"vhs_path_extensions": ["mp4"]}],
        ["COMBO", {"options": None}],
    ],
)
def test_choices_that_are_not_all_there_is(description: object) -> None:
    assert fault_in("later", of(description)) is None


def test_a_description_that_is_none() -> None:
    for nothing in (None, [], "INT", [None], [{}]):
        assert fault_in("x", of(nothing)) is None
    assert of(["INT", {"min": None, "max": float("inf")}]).maximum is None
    nameless = input_spec({"name": [], "input": {"required": {"x": [["a"]]}}}, "x")
    assert nameless is not None
    assert nameless.choices == ("a",)


def test_a_list_of_thousands_is_not_told() -> None:
    models = [f"{number}.safetensors" for number in range(5000)]
    fault = fault_in("12.safetensor", of([models, {}])) or ""
    assert fault.startswith("found '12.safetensor', expected one of its 5000 choices, did you mean")
    assert len(fault) < 120
