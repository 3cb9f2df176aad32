"""What a server can do, read from what it says and packed for the others."""

import json
import zlib
from typing import Any

import pytest

from workers.routing import capabilities as module
from workers.routing.capabilities import Capabilities, members

SAMPLER: dict[str, Any] = {
    "input": {
        "required": {
            "steps": ["INT", {"default": 20, "min": 1, "max": 10000, "tooltip": "How many."}],
            "sampler_name": [["euler", "ddim"]],
        }
    },
    "output": ["LATENT"],
    "description": "Samples.",
    "output_tooltips": ["The latent."],
}
LOADER: dict[str, Any] = {
    "input": {"required": {"image": [["a.png", "b.png"], {"image_upload": True}]}},
    "search_aliases": ["open"],
}
INFO = {"KSampler": SAMPLER, "LoadImage": LOADER}
MODELS = {"checkpoints": ["a.safetensors", "b.safetensors"], "loras": []}


def of(info: Any = INFO, models: dict[str, list[str]] = MODELS) -> Capabilities:
    return Capabilities.of(json.dumps(info), models)


def changed(class_type: str, *path: str, to: Any) -> Any:
    """What the server says with one part of it replaced."""
    info = json.loads(json.dumps(INFO))
    part = info[class_type]
    for name in path[:-1]:
        part = part[name]
    part[path[-1]] = to
    return info


# Reading


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "  {\n}\t",
        '{"a": 1}',
        ' { "a" : [ 1 , {"b": "}"} ] ,\r\n "c":null } ',
        '{"\\u00e4\\n": "\\ud83d\\ude00", "": {}}',
        '{"a": 1, "a": 2}',
    ],
)
def test_the_members_of_an_object_are_read_one_by_one(text: str) -> None:
    found = list(members(text))
    assert dict(found) == json.loads(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", "   ", "null", "[]", "5", '"a"', "<html>", "nul"),
        *("{", "{,", '{"a"', '{"a"}', '{"a":', '{"a":}', '{"a":1', '{"a":1,', '{"a":1,}'),
        *('{"a":1 "b":2}', '{"a" 1}', "{a:1}", '{"a":1;"b":2}', '{"a":{"b":}}', '{"a":1]'),
    ],
)
def test_what_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected|Expecting|double quotes"):
        list(members(text))
    with pytest.raises(ValueError):  # noqa: PT011  # the same ones
        Capabilities.of(text, {})


@pytest.mark.parametrize("told", [None, 5, [], "x", {"input": 5}, {"input": {"required": [1]}}])
def test_a_class_of_another_form_is_kept_as_it_is(told: Any) -> None:
    assert of({"Odd": told}).nodes["Odd"] == told


@pytest.mark.parametrize("spec", [None, "INT", [], ["INT"], [["a"]], ["INT", 5], ["A", {}, "x"]])
def test_an_input_of_another_form_is_kept_as_it_is(spec: Any) -> None:
    told = {"input": {"required": {"x": spec}}}
    assert of({"Odd": told}).nodes["Odd"] == told


def test_what_is_for_people_is_left_out() -> None:
    nodes = of().nodes
    assert nodes["KSampler"] == {
        "input": {
            "required": {
                "steps": ["INT", {"default": 20, "min": 1, "max": 10000}],
                "sampler_name": [["euler", "ddim"]],
            }
        },
        "output": ["LATENT"],
    }
    assert nodes["LoadImage"] == {"input": {"required": {"image": [[], {"image_upload": True}]}}}


def test_lists_of_uploaded_files_are_left_out_in_their_newer_form_too() -> None:
    options = {"video_upload": True, "options": ["a.mp4"], "default": "a.mp4"}
    nodes = of({"LoadVideo": {"input": {"required": {"file": ["COMBO", options]}}}}).nodes
    assert nodes["LoadVideo"]["input"]["required"]["file"] == [
        "COMBO",
        {"video_upload": True, "default": "a.mp4"},
    ]


def test_a_class_is_read_when_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = of().nodes
    read: list[str] = []
    loads = json.loads
    monkeypatch.setattr(module.json, "loads", lambda text: read.append(text) or loads(text))
    assert len(nodes) == 2
    assert list(nodes) == ["KSampler", "LoadImage"]
    assert nodes.get("Unknown") is None
    assert read == []
    assert nodes["LoadImage"]["input"]
    assert len(read) == 1


def test_a_folder_without_files_is_none() -> None:
    assert of().models == {"checkpoints": ("a.safetensors", "b.safetensors")}


# Digest


@pytest.mark.parametrize(
    ("info", "models"),
    [
        pytest.param(dict(reversed(INFO.items())), MODELS, id="the order of classes"),
        pytest.param(INFO, dict(reversed(MODELS.items())), id="the order of folders"),
        pytest.param(INFO, {**MODELS, "vae": []}, id="a folder without files"),
        pytest.param(changed("KSampler", "description", to="Else."), MODELS, id="a description"),
        pytest.param(changed("KSampler", "output_tooltips", to=["x"]), MODELS, id="a tooltip"),
        pytest.param(
            changed(
                *("KSampler", "input", "required", "steps"),
                to=["INT", {"default": 20, "min": 1, "max": 10000, "tooltip": "Else."}],
            ),
            MODELS,
            id="a tooltip of an input",
        ),
        pytest.param(
            changed(
                *("LoadImage", "input", "required", "image"),
                to=[["c.png"], {"image_upload": True}],
            ),
            MODELS,
            id="an uploaded file",
        ),
    ],
)
def test_what_is_of_no_account_does_not_change_the_digest(
    info: Any, models: dict[str, list[str]]
) -> None:
    assert of(info, models).digest == of().digest


@pytest.mark.parametrize(
    ("info", "models"),
    [
        pytest.param({"KSampler": SAMPLER}, MODELS, id="a class less"),
        pytest.param({**INFO, "X": SAMPLER}, MODELS, id="a class more"),
        pytest.param(
            changed("KSampler", "input", "required", "sampler_name", to=[["euler"]]),
            MODELS,
            id="a choice less",
        ),
        pytest.param(
            changed("KSampler", "input", "required", "steps", to=["INT", {"max": 5}]),
            MODELS,
            id="a range",
        ),
        pytest.param(changed("KSampler", "output", to=["IMAGE"]), MODELS, id="an output"),
        pytest.param(INFO, {"checkpoints": ["a.safetensors"]}, id="a file less"),
        pytest.param(INFO, {"unet": MODELS["checkpoints"]}, id="another folder"),
        pytest.param(INFO, {}, id="no files"),
    ],
)
def test_what_a_server_can_do_changes_the_digest(info: Any, models: dict[str, list[str]]) -> None:
    assert of(info, models).digest != of().digest


# Packing


@pytest.mark.parametrize(
    "info",
    [
        INFO,
        {},
        {"tab\tline\nbreak\u2028": {"input": {"required": {"a\tb": [["\n", "\t", "\u2029"]]}}}},
        {"ünï😀": {"default": "\ud800"}, "\ud800": {}, "": None},
        {"Odd": {"max": float("inf"), "min": float("-inf")}},
    ],
)
def test_what_is_packed_is_the_same_unpacked(info: Any) -> None:
    before = of(info, {"checkpoints": ["sub/ä\t\n.ckpt", "\ud800"], "vae": ["x"]})
    after = Capabilities.unpacked(before.packed())
    assert (dict(after.nodes), after.models) == (dict(before.nodes), before.models)
    assert after.digest == before.digest


@pytest.mark.parametrize(
    "packed",
    [b"", b"{}", b"\x78\x9c", zlib.compress(b""), zlib.compress(b"\xff"), zlib.compress(b"{}\nx")],
)
def test_another_form_is_refused(packed: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # of whatever kind
        Capabilities.unpacked(packed)


def test_packed_it_is_small() -> None:
    info = {f"Class{number}": SAMPLER for number in range(1000)}
    assert len(of(info).packed()) < len(json.dumps(info)) / 20


def test_what_servers_have_in_common_is_in_memory_once() -> None:
    one = Capabilities.unpacked(of().packed())
    another = Capabilities.unpacked(of({**INFO, "X": SAMPLER}, {}).packed())
    assert one.nodes.texts["KSampler"] is another.nodes.texts["KSampler"]
