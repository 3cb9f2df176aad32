"""Each rule of the conversion, with a graph as small as shows it."""

import json
from datetime import UTC, datetime

import pytest

from tasks.errors import InvalidWorkflowError
from workers.conversion.convert import convert

NUMBER = ["FLOAT", {"default": 1.0}]
SEED = ["INT", {"default": 0, "control_after_generate": True}]


def node_class(required=(), optional=(), output=(), **more):
    sections = {"required": dict(required), "optional": dict(optional), "hidden": {"u": "UID"}}
    return {"input": sections, "output": list(output), **more}


OBJECT_INFO = {
    "Load": node_class({"name": [["a", "b"], {}]}, output=["MODEL", "VAE"]),
    "Picture": node_class({"image": [["x.png"], {"image_upload": True}]}, output=["IMAGE", "MASK"]),
    "Sample": node_class(
        {"model": ["MODEL"], "seed": SEED, "cfg": NUMBER, "latent": ["LATENT"]},
        {"mask": ["MASK"], "mode": ["COMBO", {"options": ["fast", "slow"]}]},
        ["LATENT"],
        display_name="A Sampler",
    ),
    "Decode": node_class({"latent": ["LATENT"], "vae": ["VAE"]}, output=["IMAGE"]),
    "Blend": node_class({"one": ["IMAGE"], "two": ["IMAGE"], "factor": NUMBER}, output=["IMAGE"]),
    "ToMask": node_class({"image": ["IMAGE"]}, output=["MASK"]),
    "Prompt": node_class(
        {"text": ["STRING", {"multiline": True, "dynamicPrompts": True}]}, output=["STRING"]
    ),
    "Show": node_class({"text": ["STRING", {"forceInput": True}], "size": NUMBER}),
    "Any": node_class({"value": ["*"]}, output=["*"]),
    "SaveImage": node_class({"images": ["IMAGE"], "filename_prefix": ["STRING", {}]}),
}


class Drawing:
    """An export as it is drawn, node by node."""

    def __init__(self):
        self.nodes, self.links, self.definitions = [], [], []
        self.extra = {}

    def node(self, node_id, kind, values=None, inputs=(), outputs=(), **more):
        """`inputs`: names, each `name:TYPE` or `name:TYPE:widget`; `outputs`: types."""
        item = {
            "id": node_id,
            "type": kind,
            "inputs": [slot(text) for text in inputs],
            "outputs": [{"name": text, "type": text, "links": []} for text in outputs],
            **more,
        }
        if values is not None:
            item["widgets_values"] = values
        self.nodes.append(item)
        return self

    def link(self, origin, origin_slot, target, target_slot, kind="*"):
        link_id = len(self.links) + 1
        self.links.append([link_id, origin, origin_slot, target, target_slot, kind])
        for item in self.nodes:
            if item["id"] == target:
                item["inputs"][target_slot]["link"] = link_id
        return self

    def export(self):
        return {
            "nodes": self.nodes,
            "links": self.links,
            "version": 0.4,
            "extra": self.extra,
            "definitions": {"subgraphs": self.definitions},
        }

    def as_subgraph(self, name, inputs=(), outputs=()):
        """This drawing as a definition; links from -10 and to -20 are those of its ports."""
        links = [
            dict(
                zip(
                    ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type"),
                    link,
                    strict=True,
                )
            )
            for link in self.links
        ]
        return {
            "id": name,
            "name": name,
            "nodes": self.nodes,
            "links": links,
            "inputNode": {"id": -10},
            "outputNode": {"id": -20},
            "inputs": [self.port(text, "origin", -10, i) for i, text in enumerate(inputs)],
            "outputs": [self.port(text, "target", -20, i) for i, text in enumerate(outputs)],
        }

    def port(self, text, end, node_id, index):
        at = 1 if end == "origin" else 3
        linked = [one[0] for one in self.links if one[at] == node_id and one[at + 1] == index]
        name, kind = text.split(":")
        return {"name": name, "type": kind, "linkIds": linked}


def slot(text):
    name, kind, *widget = text.split(":")
    widgets = {"widget": {"name": name}} if widget else {}
    return {"name": name, "type": kind, "link": None, **widgets}


def converted(drawing, **more):
    export = drawing if isinstance(drawing, dict) else drawing.export()
    return json.loads(json.dumps(convert(export, OBJECT_INFO, **more)))


def inputs_of(drawing, node_id, **more):
    return converted(drawing, **more)[node_id]["inputs"]


def refusal(drawing):
    with pytest.raises(InvalidWorkflowError) as caught:
        converted(drawing)
    return caught.value.message


# Widgets


def test_values_go_to_widgets_in_order_and_controls_are_left_out():
    drawing = Drawing().node(1, "Sample", [7, "randomize", 2.5, "slow"])
    assert inputs_of(drawing, "1") == {"seed": 7, "cfg": 2.5, "mode": "slow"}


def test_missing_values_are_defaults_and_further_values_are_ignored():
    assert inputs_of(Drawing().node(1, "Sample", [7]), "1")["mode"] == "fast"
    assert inputs_of(Drawing().node(1, "Load", ["b", "image", 3]), "1") == {"name": "b"}
    assert inputs_of(Drawing().node(1, "Load"), "1") == {"name": "a"}
    assert inputs_of(Drawing().node(1, "Load", [None]), "1") == {"name": None}


def test_values_may_have_names():
    drawing = Drawing().node(1, "Sample", {"cfg": 3, "seed": 1, "preview": "x"})
    assert inputs_of(drawing, "1") == {"seed": 1, "cfg": 3, "mode": "fast"}


def test_a_format_has_widgets_of_its_own():
    formats = {"formats": {"h264": [["crf", "INT", {}]], "gif": []}}
    info = {"Video": node_class({"format": [["gif", "h264"], formats]})}
    drawing = Drawing().node(1, "Video", {"format": "h264", "crf": 19, "videopreview": {}})
    assert convert(drawing.export(), info)["1"]["inputs"] == {"format": "h264", "crf": 19}


def test_a_choice_may_have_inputs_of_its_own():
    choices = [
        {"key": "by", "inputs": {"required": {"factor": NUMBER}}},
        {"key": "to", "inputs": {"required": {"like": ["IMAGE"], "size": ["INT", {}]}}},
    ]
    resize = ["COMFY_DYNAMICCOMBO_V3", {"options": choices}]
    info = {**OBJECT_INFO, "Resize": node_class({"resize": resize, "name": [["a"]]})}
    drawing = Drawing().node(1, "Resize", ["by", 2.5, "b"])
    sent = convert(drawing.export(), info)["1"]["inputs"]
    assert sent == {"resize": "by", "resize.factor": 2.5, "name": "b"}
    drawing = Drawing().node(1, "Picture", outputs=["IMAGE"])
    drawing.node(2, "Resize", ["to", 9, "b"], ["resize.like:IMAGE"]).link(1, 0, 2, 0)
    sent = convert(drawing.export(), info)["2"]["inputs"]
    assert sent == {"resize": "to", "resize.size": 9, "resize.like": ["1", 0], "name": "b"}


def test_widgets_stand_in_the_order_that_the_server_gives():
    info = {"Two": node_class({"b": NUMBER, "a": NUMBER}, input_order={"required": ["a", "b"]})}
    drawing = Drawing().node(1, "Two", [1, 2])
    assert convert(drawing.export(), info)["1"]["inputs"] == {"a": 1, "b": 2}


def test_the_upload_button_stands_before_what_is_optional_unless_the_server_gives_an_order():
    info = {
        "input": {
            "required": {"image": [["a"], {"image_upload": True}]},
            "optional": {"size": NUMBER},
        }
    }
    drawing = Drawing().node(1, "P", ["a", "image", 3])
    assert convert(drawing.export(), {"P": info})["1"]["inputs"] == {"image": "a", "size": 3}
    info["input_order"] = {"required": ["image"], "optional": ["size"]}
    drawing = Drawing().node(1, "P", ["a", 3, "image"])
    assert convert(drawing.export(), {"P": info})["1"]["inputs"] == {"image": "a", "size": 3}


def test_lists_are_wrapped_lest_they_be_links():
    drawing = Drawing().node(1, "Load", [["a", 0]])
    assert inputs_of(drawing, "1") == {"name": {"__value__": ["a", 0]}}


def test_the_upload_button_is_not_sent():
    assert inputs_of(Drawing().node(1, "Picture", ["y.png", "image"]), "1") == {"image": "y.png"}


def test_a_file_of_another_folder_names_it_once():
    flags = {"image_upload": True, "image_folder": "output", "remote": {"refresh_button": True}}
    info = {"Output": node_class({"image": ["COMBO", flags]})}
    for name in ("y.png", "y.png [output]"):
        drawing = Drawing().node(1, "Output", [name, False, "refresh", "image"])
        sent = convert(drawing.export(), info)["1"]["inputs"]
        assert sent == {"image": "y.png [output]", "refresh": "refresh"}


def test_a_combo_without_choices_sends_nothing():
    info = {"Load": node_class({"name": [[], {}]})}
    assert convert(Drawing().node(1, "Load").export(), info)["1"]["inputs"] == {}


def test_forced_inputs_have_no_widget_though_old_files_have_a_value():
    for values in (["dummy", 4], [4]):
        drawing = Drawing().node(1, "Show", values, ["text:STRING"])
        assert inputs_of(drawing, "1") == {"size": 4}


def test_a_widget_with_a_link_sends_the_link():
    drawing = Drawing().node(1, "Any", [], outputs=["*"])
    drawing.node(2, "Sample", [7, "fixed", 2], ["cfg:FLOAT:widget"]).link(1, 0, 2, 0)
    assert inputs_of(drawing, "2") == {"seed": 7, "cfg": ["1", 0], "mode": "fast"}


def test_a_sampler_of_old_loses_its_prefix():
    info = {"KSampler": node_class({"sampler_name": [["euler"], {}]})}
    drawing = Drawing().node(1, "KSampler", ["sample_euler"])
    assert convert(drawing.export(), info)["1"]["inputs"] == {"sampler_name": "euler"}


# Texts


def test_prompts_lose_comments_and_get_one_of_their_choices():
    text = "a {b|{c|d}} // e\nf /* g */\\{h\\}"
    drawing = Drawing().node(1, "Prompt", [text])
    sent = inputs_of(drawing, "1", choose=lambda options: options[-1])
    assert sent == {"text": "a d \nf {h}"}


def test_a_prompt_with_choices_without_end_is_refused():
    assert "deeper" in refusal(Drawing().node(1, "Prompt", ["{" * 10_000]))


def test_many_comments_without_end_take_no_time():
    assert inputs_of(Drawing().node(1, "Prompt", ["/*" * 200_000]), "1")


def test_file_names_name_other_widgets_and_dates():
    drawing = Drawing().node(1, "Sample", [7, "fixed", 2.0, "a/b"], title="Mine")
    text = "%Mine.seed%-%Mine.mode%-%Mine.cfg%-%Mine.x%-%no.no%-%date:yyyy-MM-dd_hhmmss%-%width%"
    drawing.node(2, "SaveImage", [text])
    sent = inputs_of(drawing, "2", now=datetime(2025, 3, 4, 5, 6, 7, tzinfo=UTC))
    expected = "7-a_b-2-%Mine.x%-%no.no%-2025-03-04_050607-%width%"
    assert sent == {"filename_prefix": expected}


def test_file_names_find_nodes_by_their_class_and_primitives_by_their_titles():
    drawing = Drawing().node(1, "Sample", [7, "fixed", 2.0, None])
    drawing.node(2, "PrimitiveNode", ["%Mine.value%"], [], ["STRING"], title="Mine")
    drawing.nodes[1]["properties"] = {"Run widget replace on values": True}
    drawing.node(3, "SaveImage", ["%Sample.seed%-%Sample.mode%-%Mine.value%-%SaveImage.x%"])
    assert inputs_of(drawing, "3") == {"filename_prefix": "7--%Mine.value%-%SaveImage.x%"}
    drawing.nodes[0]["properties"] = {"Node name for S&R": "Other"}
    assert inputs_of(drawing, "3")["filename_prefix"].startswith("%Sample.seed%-")


# Nodes


def test_titles_are_the_nodes_own_or_the_classes():
    drawing = Drawing().node(1, "Sample", title="Mine").node(2, "Sample").node(3, "Load")
    titles = {key: node["_meta"]["title"] for key, node in converted(drawing).items()}
    assert titles == {"1": "Mine", "2": "A Sampler", "3": "Load"}


def test_notes_are_dropped_and_loose_nodes_are_sent():
    drawing = Drawing().node(1, "Note", ["x"]).node(2, "MarkdownNote", ["x"]).node("3", "Load")
    assert set(converted(drawing)) == {"3"}


def test_muted_nodes_and_links_to_them_are_dropped():
    drawing = Drawing().node(1, "Load", outputs=["MODEL", "VAE"], mode=2)
    drawing.node(2, "Sample", [], ["model:MODEL"]).link(1, 0, 2, 0)
    assert converted(drawing).keys() == {"2"}
    assert "model" not in inputs_of(drawing, "2")


@pytest.mark.parametrize(
    ("properties", "pack"),
    [
        ({"cnr_id": "some-pack", "ver": "1.2"}, " from the pack some-pack 1.2"),
        ({"aux_id": "someone/pack"}, " from the pack someone/pack"),
        ({}, ""),
    ],
)
def test_a_class_that_the_server_does_not_know_is_named_with_its_pack(properties, pack):
    drawing = Drawing().node(5, "Zzz", title="My node", properties=properties)
    expected = f"node 5 'My node': the server does not know its class Zzz{pack}"
    assert refusal(drawing) == expected


def test_all_classes_that_the_server_does_not_know_are_told():
    drawing = Drawing()
    for node_id, kind in enumerate(("A1", "Load", "B1", "A1", "C1", "D1", "E1")):
        drawing.node(node_id, kind, properties={"cnr_id": f"pack-{kind}"})
    named = "; ".join(
        f"node {node_id}: the server does not know its class {kind} from the pack pack-{kind}"
        for node_id, kind in ((0, "A1"), (2, "B1"), (4, "C1"))
    )
    assert refusal(drawing) == f"{named}; and 2 more that it does not know"


def test_links_that_only_an_extension_of_the_ui_makes_are_not_left_out_silently():
    drawing = Drawing().node(1, "Load", outputs=["MODEL", "VAE"])
    drawing.node(2, "Anything Everywhere", [], ["anything:*"], title="All").link(1, 0, 2, 0)
    message = refusal(drawing)
    assert message.startswith("node 2 'All' (Anything Everywhere): gives its input to nodes that")
    assert "export the workflow in API format" in message
    drawing.nodes[1]["mode"] = 4
    assert converted(drawing).keys() == {"1"}


def test_what_is_missing_in_the_file_itself_is_told_apart():
    assert "did you mean 'Sample'" in refusal(Drawing().node(1, "Sampel"))
    uuid = "fcd9360d-3725-484b-a4ad-1e90149b8aba"
    assert refusal(Drawing().node(1, uuid)) == f"node 1: its subgraph {uuid} is not in the file"
    assert "its group node G is not" in refusal(Drawing().node(1, "workflow>G"))


def test_unknown_classes_do_not_matter_where_nothing_is_sent():
    assert converted(Drawing().node(1, "Zzz", mode=2).node(2, "Zzz", mode=4)) == {}


# Links


def test_a_bypassed_node_passes_on_the_first_input_that_fits():
    drawing = Drawing().node(1, "Picture", outputs=["IMAGE", "MASK"])
    drawing.node(2, "Blend", [], ["one:IMAGE", "two:IMAGE"], ["IMAGE"], mode=4)
    drawing.node(3, "ToMask", [], ["image:IMAGE"], ["MASK"], mode=4)
    drawing.node(4, "Sample", [], ["model:MODEL", "latent:LATENT", "mask:MASK"])
    drawing.node(5, "SaveImage", ["x"], ["images:IMAGE"])
    drawing.link(1, 0, 2, 0).link(2, 0, 3, 0).link(2, 0, 5, 0).link(3, 0, 4, 2)
    assert inputs_of(drawing, "5") == {"filename_prefix": "x", "images": ["1", 0]}
    assert "mask" not in inputs_of(drawing, "4")


def test_a_bypassed_node_without_a_link_gives_nothing():
    drawing = Drawing().node(1, "Blend", [], ["one:IMAGE"], ["IMAGE"], mode=4)
    drawing.node(2, "SaveImage", ["x"], ["images:IMAGE"]).link(1, 0, 2, 0)
    assert inputs_of(drawing, "2") == {"filename_prefix": "x"}


def test_reroutes_are_seen_through():
    drawing = Drawing().node(1, "Load", outputs=["MODEL", "VAE"])
    drawing.node(2, "Reroute", None, [":*"], ["*"]).node(3, "Reroute", None, [":*"], ["*"])
    drawing.node(4, "Sample", [], ["model:MODEL"])
    drawing.link(1, 0, 2, 0).link(2, 0, 3, 0).link(3, 0, 4, 0)
    assert inputs_of(drawing, "4")["model"] == ["1", 0]
    assert "2" not in converted(drawing)


def test_setters_and_getters_are_linked_by_name():
    drawing = Drawing().node(1, "Load", outputs=["MODEL", "VAE"])
    drawing.node(2, "SetNode", ["m"], ["MODEL:MODEL"], ["*"]).node(3, "GetNode", ["m"], [], ["*"])
    drawing.node(4, "Sample", [], ["model:MODEL"]).link(1, 0, 2, 0).link(3, 0, 4, 0)
    assert inputs_of(drawing, "4")["model"] == ["1", 0]


@pytest.mark.parametrize("pack", ["", "easy "])
def test_the_first_setter_of_a_name_counts_and_those_around_a_subgraph_do(pack):
    setter, getter = (
        f"{pack}{kind}" for kind in (("setNode", "getNode") if pack else ("SetNode", "GetNode"))
    )
    inside = Drawing().node(1, getter, ["m"], [], ["*"]).node(2, getter, ["n"], [], ["*"])
    inside.node(3, "Load", outputs=["MODEL", "VAE"]).node(4, setter, ["n"], ["MODEL:MODEL"], ["*"])
    inside.node(5, "Sample", [], ["model:MODEL"]).node(6, "Sample", [], ["model:MODEL"])
    inside.link(1, 0, 5, 0).link(2, 0, 6, 0).link(3, 0, 4, 0)
    drawing = Drawing().node(1, "Load", outputs=["MODEL", "VAE"]).node(2, "Load", outputs=["MODEL"])
    for node_id, name, origin in ((3, "m", 1), (4, "m", 2), (5, "n", 2)):
        drawing.node(node_id, setter, [name], ["MODEL:MODEL"], ["*"]).link(origin, 0, node_id, 0)
    drawing.node(7, "S")
    drawing.definitions.append(inside.as_subgraph("S"))
    sent = converted(drawing)
    assert sent["7:5"]["inputs"]["model"] == ["1", 0]
    assert sent["7:6"]["inputs"]["model"] == ["7:3", 0]


@pytest.mark.parametrize("mode", [0, 2, 4])
@pytest.mark.parametrize("values", [[9, "fixed"], [9, "randomize", ""]])
def test_a_primitive_sets_the_widgets_that_it_is_linked_to(values, mode):
    drawing = Drawing().node(1, "PrimitiveNode", values, [], ["INT"], mode=mode)
    drawing.node(2, "Sample", [7, "fixed", 2], ["seed:INT:widget"]).link(1, 0, 2, 0)
    assert converted(drawing).keys() == {"2"}
    assert inputs_of(drawing, "2")["seed"] == 9


def test_a_primitive_sets_nothing_through_a_reroute_or_without_a_value():
    drawing = Drawing().node(1, "PrimitiveNode", [9], [], ["INT"])
    drawing.node(2, "Reroute", None, [":*"], ["*"]).node(4, "PrimitiveNode", None, [], ["INT"])
    drawing.node(3, "Sample", [7, "fixed", 2], ["seed:INT:widget", "cfg:FLOAT:widget"])
    drawing.link(1, 0, 2, 0).link(2, 0, 3, 0).link(4, 0, 3, 1)
    assert inputs_of(drawing, "3") == {"seed": 7, "cfg": 2, "mode": "fast"}


def test_links_from_nowhere_are_dropped():
    drawing = Drawing().node(1, "Sample", [], ["model:MODEL", "latent:LATENT"])
    drawing.link(99, 0, 1, 0)
    drawing.nodes[0]["inputs"][1]["link"] = 77
    assert inputs_of(drawing, "1") == {"seed": 0, "cfg": 1.0, "mode": "fast"}


def test_links_go_with_the_name_of_the_input():
    drawing = Drawing().node(1, "Picture", outputs=["IMAGE", "MASK"])
    drawing.node(2, "Blend", [], ["two:IMAGE", "added:IMAGE", "gone:INT:widget"])
    drawing.link(1, 0, 2, 0).link(1, 0, 2, 1).link(1, 0, 2, 2)
    assert inputs_of(drawing, "2") == {"two": ["1", 0], "added": ["1", 0], "factor": 1.0}


def test_links_in_a_circle_are_refused():
    drawing = Drawing().node(1, "Reroute", None, [":*"], ["*"])
    drawing.node(2, "Reroute", None, [":*"], ["*"]).node(3, "Sample", [], ["model:MODEL"])
    drawing.link(1, 0, 2, 0).link(2, 0, 1, 0).link(2, 0, 3, 0)
    assert "circle" in refusal(drawing)


# Schema


def test_links_may_be_objects_as_in_schema_1():
    drawing = Drawing().node(1, "Load", outputs=["MODEL", "VAE"])
    drawing.node("2", "Sample", [], ["model:MODEL"]).link(1, 0, "2", 0)
    export = drawing.export()
    names = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    links = [dict(zip(names, link, strict=True)) for link in export["links"]]
    export |= {"links": [*links, None], "version": 1, "reroutes": [{"id": 1, "linkIds": [1]}]}
    assert inputs_of(export, "2")["model"] == ["1", 0]


# Subgraphs


def sampler_subgraph():
    """A sampler inside, its model, seed and cfg as inputs."""
    inside = Drawing().node(3, "Sample", [7, "fixed", 2], ["model:MODEL", "seed:INT:widget"])
    inside.nodes[0]["inputs"].append(slot("cfg:FLOAT:widget"))
    inside.link(-10, 0, 3, 0).link(-10, 1, 3, 1).link(-10, 2, 3, 2).link(3, 0, -20, 0)
    return inside.as_subgraph("S", ["model:MODEL", "seed:INT", "cfg:FLOAT"], ["LATENT:LATENT"])


PORTS = ["model:MODEL", "seed:INT:widget", "cfg:FLOAT:widget"]


def with_subgraph(values, **more):
    drawing = Drawing().node(1, "Load", outputs=["MODEL", "VAE"])
    drawing.definitions = [sampler_subgraph()]
    drawing.node(5, "S", values, PORTS, ["LATENT"], **more)
    drawing.node(6, "Decode", [], ["latent:LATENT"])
    return drawing.link(1, 0, 5, 0).link(5, 0, 6, 0)


def test_subgraphs_are_expanded_with_their_promoted_widgets():
    drawing = with_subgraph([11, 4])
    expected = {"model": ["1", 0], "seed": 11, "cfg": 4, "mode": "fast"}
    assert inputs_of(drawing, "5:3") == expected
    assert inputs_of(drawing, "6")["latent"] == ["5:3", 0]
    assert converted(drawing).keys() == {"1", "5:3", "6"}


def saved_by(drawing, version):
    drawing.extra["frontendVersion"] = version
    return drawing


def test_values_stand_in_the_order_of_the_definition_whatever_inputs_the_node_shows():
    drawing = with_subgraph([11, 4])
    inputs = drawing.nodes[1]["inputs"]
    inputs.reverse()
    assert inputs_of(drawing, "5:3") == {"model": ["1", 0], "seed": 11, "cfg": 4, "mode": "fast"}
    del inputs[0]
    assert inputs_of(drawing, "5:3")["cfg"] == 4


@pytest.mark.parametrize(
    ("proxies", "values"),
    [
        # In the order that a person has given them, as frontends have saved them by turns.
        ([["-1", "cfg"], ["3", "mode"], ["-1", "seed"]], [4, None, 11]),
        ([["3", "cfg"], [3, "mode"], ["3", "seed", "x"]], [4, None, 11]),
        ('[["-1", "cfg"], ["-1", "seed"]]', [4, 11]),
    ],
)
def test_proxies_say_whose_the_values_are(proxies, values):
    drawing = with_subgraph(values, properties={"proxyWidgets": proxies})
    expected = {"model": ["1", 0], "seed": 11, "cfg": 4, "mode": "fast"}
    assert inputs_of(saved_by(drawing, "1.33.2"), "5:3") == expected
    # What doesn't know them goes by the order of the inputs.
    assert inputs_of(saved_by(drawing, "1.27.10"), "5:3")["seed"] == 4


def test_a_proxy_has_the_value_of_its_widget_unless_one_is_saved_with_the_node():
    proxies = {"proxyWidgets": [["3", "mode"], ["-1", "seed"], ["9", "gone"], ["3", "$$preview"]]}
    drawing = saved_by(with_subgraph([None, 11, 1, 2], properties=proxies), "1.45.0")
    assert inputs_of(drawing, "5:3")["mode"] == "fast"
    drawing.nodes[1]["widgets_values"][0] = "slow"
    expected = {"model": ["1", 0], "seed": 11, "cfg": 2, "mode": "slow"}
    assert inputs_of(drawing, "5:3") == expected


@pytest.mark.parametrize("name", ["3: mode", " 3 : mode"])
def test_a_proxy_may_be_of_a_widget_deeper_inside(name):
    outer = Drawing().node(5, "S", [12, 5], PORTS, ["LATENT"])
    outer.nodes[0]["properties"] = {"proxyWidgets": [["3", "mode"]]}
    drawing = Drawing().node(2, "T", ["slow", 13], [], [])
    drawing.nodes[0]["properties"] = {"proxyWidgets": [["5", name], ["5", "seed"], ["5", "7: x"]]}
    drawing.definitions = [sampler_subgraph(), outer.as_subgraph("T")]
    sent = inputs_of(saved_by(drawing, "1.45.0"), "2:5:3")
    assert sent == {"seed": 13, "cfg": 5, "mode": "slow"}


def test_a_proxy_may_be_of_a_primitive():
    inside = Drawing().node(1, "PrimitiveNode", [9, "fixed"], [], ["INT"])
    inside.node(2, "Sample", [7, "fixed", 2], ["seed:INT:widget"]).link(1, 0, 2, 0)
    drawing = Drawing().node(3, "S", [11], properties={"proxyWidgets": [["1", "value"]]})
    drawing.node(4, "S", [None], properties={"proxyWidgets": [["1", "value"]]})
    drawing.definitions.append(inside.as_subgraph("S"))
    sent = converted(saved_by(drawing, "1.45.0"))
    assert (sent["3:2"]["inputs"]["seed"], sent["4:2"]["inputs"]["seed"]) == (11, 9)


@pytest.mark.parametrize("mode", [2, 4])
def test_what_is_in_a_muted_subgraph_was_asked_itself_and_is_muted_with_it_now(mode):
    drawing = with_subgraph([11, 4], mode=mode)
    for version in ("", "1.27.10", "x"):
        assert "5:3" in converted(saved_by(drawing, version))
    assert converted(saved_by(drawing, "1.39.1")).keys() == {"1", "6"}


def test_a_muted_node_takes_a_widgets_value_away_with_old_frontends_only():
    drawing = Drawing().node(1, "Any", [], [], ["INT"], mode=2)
    drawing.node(2, "Sample", [7, "fixed"], ["seed:INT:widget"]).link(1, 0, 2, 0)
    assert "seed" not in inputs_of(saved_by(drawing, "1.27.10"), "2")
    assert inputs_of(saved_by(drawing, "1.39.0"), "2")["seed"] == 7
    drawing.nodes[0] |= {"type": "PrimitiveNode", "widgets_values": [9]}
    assert inputs_of(drawing, "2")["seed"] == 9


def test_promoted_widgets_without_a_value_have_that_inside():
    sent = inputs_of(with_subgraph([11], properties={"proxyWidgets": [["3", "mode"]]}), "5:3")
    assert (sent["seed"], sent["cfg"]) == (11, 2)


def test_a_primitive_sets_a_promoted_widget():
    drawing = with_subgraph([11, 4]).node(8, "PrimitiveNode", [99, "fixed"], [], ["INT"])
    assert inputs_of(drawing.link(8, 0, 5, 1), "5:3")["seed"] == 99


def test_a_bypassed_subgraph_passes_on_what_fits():
    drawing = Drawing().node(1, "Any", outputs=["LATENT"])
    inside = Drawing().node(3, "Any", [], ["value:*"], mode=4).link(-10, 0, 3, 0).link(3, 0, -20, 0)
    drawing.definitions = [inside.as_subgraph("S", ["x:LATENT"], ["y:LATENT"])]
    drawing.node(5, "S", [], ["x:LATENT"], ["LATENT"], mode=4)
    drawing.node(6, "Decode", [], ["latent:LATENT"]).link(1, 0, 5, 0).link(5, 0, 6, 0)
    assert converted(drawing)["6"]["inputs"] == {"latent": ["1", 0]}


def test_subgraphs_are_nested():
    outer = Drawing().node(4, "S", [21, 3], PORTS, ["LATENT"])
    outer.link(-10, 0, 4, 0).link(-10, 1, 4, 1).link(4, 0, -20, 0)
    drawing = Drawing().node(1, "Load", outputs=["MODEL", "VAE"])
    drawing.definitions = [
        sampler_subgraph(),
        outer.as_subgraph("T", ["m:MODEL", "s:INT"], ["LATENT:LATENT"]),
    ]
    drawing.node(7, "T", [], ["m:MODEL", "s:INT:widget"], ["LATENT"])
    drawing.node(8, "T", [22], ["m:MODEL", "s:INT:widget"], ["LATENT"])
    drawing.node(9, "Decode", [], ["latent:LATENT"]).link(1, 0, 7, 0).link(7, 0, 9, 0)
    expected = {"model": ["1", 0], "seed": 21, "cfg": 3, "mode": "fast"}
    assert inputs_of(drawing, "7:4:3") == expected
    assert inputs_of(drawing, "8:4:3") == {"seed": 22, "cfg": 3, "mode": "fast"}
    assert inputs_of(drawing, "9")["latent"] == ["7:4:3", 0]


def test_a_link_may_lead_straight_through_a_subgraph():
    inside = Drawing().link(-10, 0, -20, 0)
    drawing = Drawing().node(1, "Load", outputs=["MODEL", "VAE"])
    drawing.definitions = [inside.as_subgraph("S", ["m:MODEL"], ["m:MODEL"])]
    drawing.node(5, "S", [], ["m:MODEL"], ["MODEL"]).node(6, "Sample", [], ["model:MODEL"])
    assert inputs_of(drawing.link(1, 0, 5, 0).link(5, 0, 6, 0), "6")["model"] == ["1", 0]


def test_a_subgraph_with_itself_inside_is_refused():
    drawing = Drawing().node(1, "S")
    drawing.definitions = [Drawing().node(2, "T").as_subgraph("S")]
    drawing.definitions.append(Drawing().node(3, "S").as_subgraph("T"))
    assert "has itself inside" in refusal(drawing)


def test_subgraphs_that_double_without_end_are_refused():
    drawing = Drawing().node(1, "0")
    for level in range(40):
        inside = Drawing().node(1, str(level + 1)).node(2, str(level + 1))
        drawing.definitions.append(inside.as_subgraph(str(level)))
    drawing.definitions.append(Drawing().node(1, "Load").as_subgraph("40"))
    assert "more than" in refusal(drawing)


# Group nodes


def with_group(values, **more):
    """A group of a loader, a primitive, a sampler and a decoder, the last node's output shown."""
    drawing = Drawing()
    nodes = Drawing().node(-1, "Load", ["a"], outputs=["MODEL", "VAE"])
    nodes.node(-1, "PrimitiveNode", [5, "fixed"], [], ["FLOAT"])
    inputs = ["model:MODEL", "latent:LATENT", "cfg:FLOAT:widget"]
    nodes.node(-1, "Sample", [7, "fixed", 2, "fast"], inputs, ["LATENT"])
    nodes.node(-1, "Decode", [], ["latent:LATENT", "vae:VAE"], ["IMAGE"])
    links = [[0, 0, 2, 0], [1, 0, 2, 2], [2, 0, 3, 0], [0, 1, 3, 1]]
    group = {"nodes": nodes.nodes, "links": links, "external": [[3, 0, "IMAGE"]]}
    drawing.extra = {"groupNodes": {"G": group}}
    drawing.node(1, "Any", [], ["value:*"], ["*"])
    drawing.node(6, "workflow>G", values, ["latent:LATENT"], ["IMAGE"], **more)
    drawing.node(8, "SaveImage", ["x"], ["images:IMAGE"])
    return drawing.link(1, 0, 6, 0).link(6, 0, 8, 0)


def test_group_nodes_are_expanded_with_their_widgets():
    # The widgets: name, the primitive's, seed and its control, mode.
    drawing = with_group(["b", 5.5, 11, "randomize", "slow"])
    sent = converted(drawing)
    assert sent.keys() == {"1", "6:0", "6:2", "6:3", "8"}
    assert sent["6:0"]["inputs"] == {"name": "b"}
    expected = {"seed": 11, "cfg": 5.5, "mode": "slow", "model": ["6:0", 0], "latent": ["1", 0]}
    assert sent["6:2"]["inputs"] == expected
    assert sent["6:3"]["inputs"] == {"latent": ["6:2", 0], "vae": ["6:0", 1]}
    assert sent["8"]["inputs"]["images"] == ["6:3", 0]


def test_group_nodes_of_old_have_another_prefix():
    drawing = with_group(None)
    drawing.nodes[1]["type"] = "workflow/G"
    assert inputs_of(drawing, "6:2")["seed"] == 7
