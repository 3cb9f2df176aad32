"""Whatever a file has in it, conversion ends soon: with a workflow or with one clear sentence."""

import copy
import json
import math
import random
from functools import cache
from pathlib import Path
from time import process_time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.errors import InvalidWorkflowError
from workers.conversion import allowance
from workers.conversion.convert import convert

PAIRS = Path(__file__).parent.parent / "fixtures" / "convert"
NAMES = (
    "default",
    "edge_subgraph_with_output",
    "edge_bypass_type_change",
    "hidream_e1_1",
    "image_qwen_image_instantx_inpainting_controlnet",
)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-20, 300)
    | st.sampled_from([2**70, -1, 1.5, 1e300, math.nan, math.inf, "", "\ud800", "Reroute", "-10"])
    | st.text(max_size=5)
)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@cache
def read(name):
    return json.loads((PAIRS / f"{name}.json").read_text("utf-8"))


def attempt(export):
    """Convert, and see that it fails as it may or not at all."""
    message = "one sentence"
    try:
        json.dumps(convert(export, read("object_info")))
    except InvalidWorkflowError as error:
        message = error.message
    assert message
    assert "\n" not in message


def spots(value):
    """Every container in a value, with the keys to what it holds."""
    waiting, found = [value], []
    while waiting:
        part = waiting.pop()
        keys = list(part) if isinstance(part, dict) else range(len(part))
        found.extend((part, key) for key in keys)
        waiting.extend(part[key] for key in keys if isinstance(part[key], dict | list))
    return found


@given(JSON)
@settings(max_examples=100, deadline=20_000)
def test_any_json(value):
    attempt(value)
    attempt({"nodes": value})
    attempt({"nodes": [{"id": 1, "type": "KSampler", "inputs": value, "outputs": value}]})
    attempt({"nodes": [{"id": 1, "type": "KSampler", "widgets_values": value}], "extra": value})
    attempt({"nodes": [], "links": value, "definitions": {"subgraphs": value}})
    shown = {"properties": {"proxyWidgets": value}, "widgets_values": value}
    attempt(
        {
            "nodes": [{"id": 1, "type": "S", **shown}],
            "definitions": {"subgraphs": [subgraph("S", "KSampler", "S2"), subgraph("S2")]},
            "extra": {"frontendVersion": "1.45.0"},
        }
    )
    attempt({"nodes": [{"id": 1, "type": "workflow>G"}], "extra": {"groupNodes": {"G": value}}})


@given(st.sampled_from(NAMES), st.randoms(use_true_random=False), st.lists(JSON, max_size=4))
@settings(max_examples=150, deadline=20_000, suppress_health_check=[HealthCheck.too_slow])
def test_exports_with_parts_replaced(name, chance, parts):
    export = copy.deepcopy(read(f"{name}.ui"))
    for part in parts:
        container, key = chance.choice(spots(export))
        container[key] = part
    attempt(export)


@given(st.sampled_from(NAMES), st.integers(0, 2**32))
@settings(max_examples=100, deadline=20_000, suppress_health_check=[HealthCheck.too_slow])
def test_exports_with_parts_exchanged(name, seed):
    chance = random.Random(seed)
    export = copy.deepcopy(read(f"{name}.ui"))
    for _ in range(chance.randint(1, 8)):
        found = spots(export)
        (to, to_key), (origin, key) = chance.choice(found), chance.choice(found)
        to[to_key] = copy.deepcopy(origin[key])
    attempt(export)


@pytest.mark.parametrize("depth", [1000, 100_000])
def test_deep_values(depth):
    deep = []
    for _ in range(depth):
        deep = [deep]
    sampler = {"id": 1, "type": "KSampler"}
    for export in (
        {"nodes": deep},
        {"nodes": [{**sampler, "inputs": deep}]},
        {"nodes": [{**sampler, "properties": {"a": deep}, "title": deep}], "extra": deep},
        {"nodes": [], "links": deep},
    ):
        with pytest.raises(InvalidWorkflowError):
            convert({**export, "nodes": [*export["nodes"], 7]}, read("object_info"))
    assert convert({"nodes": [{**sampler, "widgets_values": [deep]}]}, read("object_info"))


def subgraph(name, *types):
    nodes = [{"id": index, "type": kind} for index, kind in enumerate(types)]
    return {"id": name, "name": name, "nodes": nodes}


def reroutes(count):
    """So many reroutes in a row, and as many nodes that begin at the last one."""
    nodes, links = [], []
    for index in range(2 * count):
        kind = "Reroute" if index < count else "PreviewAny"
        slot = {"name": "source", "type": "*", "link": index}
        nodes.append({"id": index, "type": kind, "inputs": [slot], "outputs": [{"type": "*"}]})
        links.append([index, min(index, count) - 1, 0, index, 0, "*"])
    return {"nodes": nodes, "links": links[1:]}


def promoted_widgets(count):
    """So many inputs of a subgraph, each with as many links to a node of as many inputs."""
    inputs = [{"name": f"i{index}", "type": "*", "link": 1} for index in range(count)]
    inner = {
        **subgraph("S"),
        "nodes": [{"id": 3, "type": "PreviewAny", "inputs": inputs}],
        "links": [[1, -10, count - 1, 3, 0, "*"]],
        "inputs": [{**one, "linkIds": [1] * count} for one in inputs],
    }
    outer = [{**one, "link": None} for one in inputs]
    nodes = [{"id": index, "type": "S", "inputs": outer} for index in range(count)]
    return {"nodes": nodes, "definitions": {"subgraphs": [inner]}}


def group_in_itself():
    return {"groupNodes": {"G": {"nodes": [{"type": "workflow>G"}], "links": [[0, 0, 0, 0]]}}}


def chain_of_subgraphs(count):
    subgraphs = [subgraph(str(one), str(one + 1)) for one in range(count)]
    return {"nodes": [{"id": 1, "type": "0"}], "definitions": {"subgraphs": subgraphs}}


def proxies_in_circles():
    """Two subgraphs that show each other's widgets, both muted."""
    port = {"name": "a", "type": "*", "linkIds": [1]}
    subgraphs = [
        {
            **subgraph(name, other),
            "links": [[1, -10, 0, 0, 0, "*"]],
            "inputs": [port],
        }
        for name, other in (("S", "T"), ("T", "S"))
    ]
    for one in subgraphs:
        shown = {"proxyWidgets": [["0", "a"], ["0", "0: 0: 0: a"]]}
        slot = {"name": "a", "type": "*", "link": 1}
        one["nodes"][0] |= {
            "mode": 2,
            "properties": shown,
            "inputs": [slot],
            "widgets_values": [1, 2],
        }
    node = {**subgraphs[1]["nodes"][0], "inputs": []}
    extra = {"frontendVersion": "1.45.0"}
    return {"nodes": [node], "definitions": {"subgraphs": subgraphs}, "extra": extra}


def many_proxies():
    """A subgraph's node with many widgets, many times over."""
    shown = {"proxyWidgets": [["0", "a"]] * 1000}
    inner = {"id": 0, "type": "T", "properties": shown, "widgets_values": [1] * 1000}
    subgraphs = [{**subgraph("S"), "nodes": [inner]}, subgraph("T", "PreviewAny")]
    nodes = [{"id": index, "type": "S"} for index in range(5000)]
    extra = {"frontendVersion": "1.45.0"}
    return {"nodes": nodes, "definitions": {"subgraphs": subgraphs}, "extra": extra}


def prompt(text):
    return {"id": 1, "type": "CLIPTextEncode", "widgets_values": [text]}


def much_from_little(kind):
    """A subgraph with a long text, many times over."""
    inner = {"id": 1, "type": kind, "widgets_values": ["x" * 100_000]}
    nodes = [{"id": index, "type": "S"} for index in range(5000)]
    return {"nodes": nodes, "definitions": {"subgraphs": [{**subgraph("S"), "nodes": [inner]}]}}


def replacements(value):
    """File names that name a long text many times, and what they are made of."""
    named = {**prompt(value), "title": "T"}
    saver = {"id": 2, "type": "SaveImage", "widgets_values": ["%T.text%" * 10_000]}
    return {"nodes": [named, saver]}


@pytest.mark.parametrize(
    ("export", "words"),
    [
        (much_from_little("CLIPTextEncode"), "more than 33,554,432 characters"),
        (much_from_little("StringConcatenate"), "more than 33,554,432 characters"),
        (replacements("x" * 100_000), "more than 33,554,432 characters"),
        (proxies_in_circles(), "itself"),
        (many_proxies(), "values for widgets inside"),
        (chain_of_subgraphs(200), "nested deeper"),
        ({"nodes": [{"id": 1, "type": "workflow>G"}], "extra": group_in_itself()}, "itself"),
        (reroutes(2000), "hops"),
        (promoted_widgets(300), "hops"),
        ({"nodes": [{"id": 1, "type": "A"}] * 2}, "two nodes"),
        ({"nodes": [{"id": n, "type": "Note"} for n in range(20_001)]}, "at most"),
        ({"nodes": [{"id": math.nan, "type": "Note"}]}, "id nan"),
        ({"nodes": [{"id": 1, "type": "x" * 1_000_000}]}, "does not know its class"),
        ([], "no export"),
        ({"3": {"class_type": "KSampler", "inputs": {}}}, "no export"),
    ],
)
def test_is_refused_soon(export, words):
    started = process_time()
    with pytest.raises(InvalidWorkflowError, match=words) as caught:
        convert(export, read("object_info"))
    assert len(caught.value.message) < 1001
    assert process_time() - started < 5


def test_each_level_of_choices_counts(monkeypatch):
    monkeypatch.setattr(allowance, "_MOST_CHARACTERS", 100_000)
    info = read("object_info")
    assert convert({"nodes": [prompt("{" * 5 + "x" * 10_000)]}, info)
    with pytest.raises(InvalidWorkflowError, match="more than 100,000 characters"):
        convert({"nodes": [prompt("{" * 49 + "x" * 10_000)]}, info)
