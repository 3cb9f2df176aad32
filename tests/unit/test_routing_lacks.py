"""What a server lacks for a workflow, each kind of lack with the sentence that tells it."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.errors import InvalidWorkflowError
from workers.routing.capabilities import Capabilities
from workers.routing.judgement import Judgement, judge
from workers.routing.lacks import Lack, hinted, lacks, told, would_run_in_part
from workers.routing.models import models_key

MODELS = {"checkpoints": ["a.safetensors", "sub/b-fp8.safetensors"], "loras": ["c.safetensors"]}
INFO: dict[str, Any] = {
    "Loader": {"input": {"required": {"ckpt_name": [MODELS["checkpoints"]]}}},
    "Sampler": {
        "input": {
            "required": {
                "model": ["MODEL"],
                "steps": ["INT", {"min": 1, "max": 100}],
                "name": [["euler", "ddim"]],
            },
            "optional": {"cfg": ["FLOAT", {"min": 0.0}]},
            "hidden": {"prompt": "PROMPT"},
        }
    },
    "LoadImage": {"input": {"required": {"image": [["x.png"], {"image_upload": True}]}}},
    "Files": {"input": {"required": {"file": [["x.bin", "y.bin"]]}}},
    "Boxes": {"input": {"required": {"box": [[{"id": 1}, {"id": 2}]]}}},
    "Save": {"input": {"required": {"images": ["IMAGE"]}}, "output_node": True},
    "Preview": {"input": {"required": {"images": ["IMAGE"]}}, "output_node": True},
    "Odd": 5,
}
SERVER = Capabilities.of(json.dumps(INFO), MODELS)


def node(class_type: str, title: str = "", **inputs: Any) -> dict[str, Any]:
    meta = {"_meta": {"title": title}} if title else {}
    return {"class_type": class_type, "inputs": inputs, **meta}


def found(workflow: Mapping[str, Any], *placed: str) -> list[str]:
    return [one.message for one in lacks(workflow, SERVER, placed)]


def sampler(**inputs: Any) -> dict[str, Any]:
    return node("Sampler", **{"model": ["1", 0], "steps": 20, "name": "euler", **inputs})


SOUND = {
    "1": node("Loader", ckpt_name="a.safetensors"),
    "2": sampler(cfg=7.5),
    "3": node("LoadImage", image="whatever.png"),
    "4": node("Save", images=["2", 0]),
}


def test_a_workflow_that_it_can_run_lacks_nothing() -> None:
    assert lacks(SOUND, SERVER) == ()


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        pytest.param(
            node("Sampla"),
            "node 5 (Sampla): the server does not know its class, did you mean 'Sampler'?",
            id="an unknown class",
        ),
        pytest.param(
            node("Qqqqqq"),
            "node 5 (Qqqqqq): the server does not know its class",
            id="nothing like it",
        ),
        pytest.param(
            node("Loader", ckpt_name="d.safetensors"),
            "node 5 (Loader), input ckpt_name: the server does not have 'd.safetensors'",
            id="a missing model",
        ),
        pytest.param(
            node("Loader", ckpt_name="b.safetensors"),
            "node 5 (Loader), input ckpt_name: the server does not have 'b.safetensors'; "
            "near: sub/b-fp8.safetensors in checkpoints",
            id="a missing model with one near",
        ),
        pytest.param(
            node("Loader", ckpt_name="c.safetensors"),
            "node 5 (Loader), input ckpt_name: the server does not have 'c.safetensors'; "
            "near: c.safetensors in loras",
            id="a model of another kind",
        ),
        pytest.param(
            sampler(name="heun"),
            "node 5 (Sampler), input name: found 'heun', expected one of 'euler', 'ddim'",
            id="a choice that there is not",
        ),
        pytest.param(
            sampler(steps=101),
            "node 5 (Sampler), input steps: found 101, expected a whole number from 1 to 100",
            id="a number out of range",
        ),
        pytest.param(
            sampler(steps="many"),
            "node 5 (Sampler), input steps: found 'many', expected a whole number from 1 to 100",
            id="no number",
        ),
        pytest.param(
            sampler(cfg=-1),
            "node 5 (Sampler), input cfg: found -1, expected a number of at least 0.0",
            id="an optional input",
        ),
        pytest.param(
            node("Sampler", model=["1", 0], steps=5),
            "node 5 (Sampler), input name: is required, and missing",
            id="a missing input",
        ),
    ],
)
def test_what_is_lacking_is_named(broken: dict[str, Any], message: str) -> None:
    workflow = {**SOUND, "5": broken, "6": node("Save", images=["5", 0])}
    (lack,) = hinted(lacks(workflow, SERVER), SERVER.nodes, SERVER.models)
    assert (lack.node_id, lack.message, lack.is_sure) == ("5", message, True)


def test_the_inputs_of_what_no_output_needs_do_not_count() -> None:
    loose = node("Sampler", steps=0)
    assert found({**SOUND, "5": loose, "6": node("Any", of=["5", 0])}) == [
        "node 6 (Any): the server does not know its class"
    ]
    assert len(found({**SOUND, "5": loose, "6": node("Save", images=["5", 0])})) == 3


def test_a_class_that_is_told_in_no_known_form_is_not_known() -> None:
    (message,) = found({"1": node("Odd")})
    assert message.startswith("node 1 (Odd): the server does not know its class")


def test_each_lack_is_named_in_the_workflows_order() -> None:
    broken = sampler(steps=0, name="x")
    workflow = {
        "9": node("Nope"),
        **SOUND,
        "5": broken,
        "6": node("Nope"),
        "7": node("Save", images=["5", 0]),
    }
    assert [one.node_id for one in lacks(workflow, SERVER)] == ["9", "5", "5", "6"]


@pytest.mark.parametrize(
    "sound",
    [
        pytest.param(sampler(name=["7", 0], steps=["7", 1]), id="links for values"),
        pytest.param(sampler(unknown="x", prompt=5), id="inputs that the class does not have"),
        pytest.param(node("Sampler", model=["1", 0], steps="20", name="ddim"), id="text for 20"),
        pytest.param(node("Save", images="no link"), id="what only links can bring"),
    ],
)
def test_what_servers_do_not_mind_is_no_lack(sound: dict[str, Any]) -> None:
    assert found({**SOUND, "5": sound, "6": node("Save", images=["5", 0])}) == []


def test_a_file_that_is_placed_first_is_there() -> None:
    workflow = {"1": node("Files", file="z.bin")}
    assert found(workflow, "z.bin") == []
    assert found(workflow, "x.bin", "Z.bin") == [
        "node 1 (Files), input file: the server does not have 'z.bin'"
    ]


def test_choices_that_are_no_names_are_for_the_node_to_judge() -> None:
    (lack,) = lacks({"1": node("Boxes", box="first")}, SERVER)
    assert not lack.is_sure
    assert lack.message.startswith("node 1 (Boxes), input box: found 'first'")


def test_names_from_outside_break_no_sentence() -> None:
    (message,) = found({"1\n": node("Lo\nader" * 100, title="\x1b[31m")})
    assert message.isprintable()
    assert len(message) < 500


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [((), False), (("Save",), False), (("Save", "Save"), True), (("Save", "Preview"), True)],
)
def test_a_prompt_with_several_outputs_may_be_run_in_part(
    outputs: tuple[str, ...], expected: bool
) -> None:
    nodes = {str(n): node(one, images=["1", 0]) for n, one in enumerate(outputs, 10)}
    workflow = {"1": node("Loader"), "2": node("Nope"), "3": node("Odd"), **nodes}
    assert would_run_in_part(workflow, SERVER) is expected


@pytest.mark.parametrize(
    ("count", "expected"),
    [(1, "lack 0"), (3, "lack 0; lack 1; lack 2"), (5, "lack 0; lack 1; lack 2; and 2 more")],
)
def test_a_sentence_names_three_of_them(count: int, expected: str) -> None:
    assert told([Lack("1", f"lack {number}") for number in range(count)]) == expected


# A judgement


def test_a_server_that_lacks_nothing_is_able_and_its_models_have_a_name() -> None:
    judgement = judge(lambda _: SOUND, SERVER)
    assert judgement == Judgement((), models_key(SOUND, SERVER.models))
    assert judgement.able
    assert judgement.models


def test_what_is_judged_is_the_workflow_that_this_server_would_be_sent() -> None:
    judgement = judge(lambda nodes: {"1": node("Loader", ckpt_name=f"{len(nodes)}.ckpt")}, SERVER)
    assert [one.node_id for one in judgement.lacks] == ["1"]
    assert not judgement.able
    assert f"'{len(INFO)}.ckpt'" in told(judgement.lacks)


def test_a_workflow_that_its_nodes_cannot_be_is_a_lack_of_no_node() -> None:
    def prepare(_: object) -> Any:
        raise InvalidWorkflowError("node 7 of no pack")

    assert judge(prepare, SERVER) == Judgement((Lack("", "node 7 of no pack"),))


def test_a_judgement_knows_what_is_placed() -> None:
    workflow = {"1": node("Files", file="z.bin")}
    assert judge(lambda _: workflow, SERVER, {"z.bin": "data:,"}).able
    assert not judge(lambda _: workflow, SERVER).able


# Whatever a server says

_WORDS = ("INT", "FLOAT", "COMBO", "*", "MODEL", "a.safetensors", "INT,FLOAT", "COMFY_X", "")
_OPTIONS = ("options", "min", "max", "default", "formats", "multi_select", "remote", "image_upload")
_NAMES = st.sampled_from(["a", "a.b", "key", "inputs", "required", "optional", *_OPTIONS])
_LEAVES = (
    *(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False)),
    st.sampled_from([*_WORDS, "COMFY_DYNAMICCOMBO_V3"]),
)
_VALUES = st.recursive(
    st.one_of(*_LEAVES),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=3),
    max_leaves=8,
)
_SPECS = _VALUES | st.tuples(_VALUES, st.dictionaries(_NAMES, _VALUES, max_size=3)).map(list)
_SECTIONS = st.dictionaries(
    st.sampled_from(["required", "optional"]), _VALUES
) | st.fixed_dictionaries({"required": st.dictionaries(_NAMES, _SPECS, max_size=3)})
_CLASSES = _VALUES | st.fixed_dictionaries(
    {"input": _SECTIONS, "output_node": _VALUES, "name": _VALUES}
)
_NODES = st.fixed_dictionaries(
    {
        "class_type": st.sampled_from("ABC"),
        "inputs": st.dictionaries(_NAMES, _VALUES, max_size=3),
    }
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    info=st.dictionaries(st.sampled_from("AB"), _CLASSES, max_size=2),
    workflow=st.dictionaries(st.sampled_from("123"), _NODES, max_size=2),
)
def test_whatever_a_server_says_a_job_is_judged(info: Any, workflow: Any) -> None:
    server = Capabilities.unpacked(Capabilities.of(json.dumps(info), MODELS).packed())
    judgement = judge(lambda _: workflow, server)
    assert all(one.message.isprintable() for one in judgement.lacks)
    would_run_in_part(workflow, server)


def test_a_class_of_any_name_is_judged() -> None:
    info = {"A": {"name": [], "input": {"required": {"x": [["a", "b"], {}]}}}}
    server = Capabilities.of(json.dumps(info), {})
    assert len(lacks({"1": node("A", x="c")}, server)) == 1
