"""Params: which input an address means, which values fit it, which seeds come of `random`."""

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.errors import InvalidWorkflowError
from tasks.params import check_params, locate
from workers.nodes.params import apply_params, check_values, seeds_in

RECORDED = Path(__file__).parents[1] / "fixtures" / "convert" / "object_info.json"

WORKFLOW: dict[str, Any] = {
    "3": {
        "class_type": "KSampler",
        "inputs": {"seed": 1, "steps": 20, "cfg": 8.0, "sampler_name": "euler", "model": ["4", 0]},
        "_meta": {"title": "Sampler v1.5"},
    },
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "x"}},
    "6": {
        "class_type": "CLIPTextEncode",
        "inputs": {"text": "a dog", "clip": ["4", 1]},
        "_meta": {"title": "Positive Prompt"},
    },
    "7": {
        "class_type": "CLIPTextEncode",
        "inputs": {"text": ["9", 0], "clip": ["8", 0]},
        "_meta": {"title": "Negative Prompt"},
    },
    "8": {"class_type": "Reroute", "inputs": {"": ["4", 1]}},
    "9": {"class_type": "StringConcatenate", "inputs": {"string_a": "a", "string_b": ["10:3", 0]}},
    "10:3": {"class_type": "PrimitiveInt", "inputs": {"value": 5}, "_meta": {"title": "Twin"}},
    "11": {"class_type": "OfAnotherServer", "inputs": {"seed": 1}, "_meta": {"title": "Twin"}},
    "12": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "size.width": 8}},
}


@pytest.fixture(scope="module")
def object_info() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(RECORDED.read_text())
    return content


def refusal(params: dict[str, Any]) -> str:
    with pytest.raises(InvalidWorkflowError) as caught:
        check_params(WORKFLOW, params)
    return caught.value.message


class TestAddresses:
    @pytest.mark.parametrize(
        ("address", "place"),
        [
            ("6.text", ("6", "text")),
            ("10:3.value", ("10:3", "value")),
            ("Positive Prompt.text", ("6", "text")),
            ("Sampler v1.5.seed", ("3", "seed")),
            # Without a title it is the class.
            ("CheckpointLoaderSimple.ckpt_name", ("4", "ckpt_name")),
            ("12.size.width", ("12", "size.width")),
            # Perhaps the class has it, though the node does not.
            ("3.denoise", ("3", "denoise")),
        ],
    )
    def test_an_id_or_a_title(self, address: str, place: tuple[str, str]) -> None:
        assert locate(WORKFLOW, {address: 1}) == {address: place}

    def test_an_id_goes_before_a_title(self) -> None:
        titled = {**WORKFLOW, "12": {**WORKFLOW["12"], "_meta": {"title": "6"}}}
        assert locate(titled, {"6.text": 1}) == {"6.text": ("6", "text")}

    @pytest.mark.parametrize("meta", [None, [], {"title": None}, {"title": ""}, {"title": [1]}])
    def test_what_is_no_title(self, meta: object) -> None:
        odd = {"1": {"class_type": "A", "inputs": {}, "_meta": meta}}
        assert locate(odd, {"A.x": 1}) == {"A.x": ("1", "x")}

    @pytest.mark.parametrize(
        ("params", "sentence"),
        [
            ({"66.text": 1}, "param '66.text': there is no node '66', did you mean '6'?"),
            ({"positive prompt.text": 1}, "there is no node 'positive prompt', did you mean"),
            ({"Positiv.text": 1}, "there is no node 'Positiv', did you mean 'Positive Prompt'?"),
            (
                {"Twin.seed": 1},
                "nodes 10:3, 11 have the title 'Twin'; name one of them by its id",
            ),
            ({"6": 1}, "expected a node's id or title, a dot and the name of an input"),
            ({"6.": 1}, "expected a node's id or title, a dot and the name of an input"),
            ({".text": 1}, "expected a node's id or title, a dot and the name of an input"),
            ({"6.text": float("nan")}, "param '6.text': found NaN or Infinity"),
            (
                {"6.text": 1, "Positive Prompt.text": 2},
                "param 'Positive Prompt.text': param '6.text' sets the same input",
            ),
            (
                {"6.clip": "x"},
                "param '6.clip': node 6 (CLIPTextEncode), input clip, is linked to "
                "node 4 (CheckpointLoaderSimple); set '4.ckpt_name' instead",
            ),
            # By way of a node that only passes on.
            ({"7.clip": "x"}, "is linked to node 8 (Reroute); set '4.ckpt_name' instead"),
            ({"7.text": "x"}, "node 9 (StringConcatenate); set '9.string_a' instead"),
            ({"12.images": "x"}, "linked to node 3 (KSampler); set an input there"),
            ({"6.text": ["4", 0]}, "found the link ['4', 0]; params set values"),
        ],
    )
    def test_what_fits_the_workflow_nowhere(self, params: dict[str, Any], sentence: str) -> None:
        assert sentence in refusal(params)

    def test_nodes_of_one_title_are_not_all_named(self) -> None:
        many = {str(n): {"class_type": "A", "inputs": {}} for n in range(100)}
        with pytest.raises(InvalidWorkflowError, match="nodes 0, 1, 2, 3, 4 and 95 more have"):
            check_params(many, {"A.x": 1})

    def test_links_in_a_circle_end(self) -> None:
        circle = {n: {"class_type": "A", "inputs": {"x": [m, 0]}} for n, m in ("12", "21")}
        with pytest.raises(InvalidWorkflowError, match="set an input there"):
            check_params(circle, {"1.x": 1})

    def test_of_an_export_only_the_form_is_known(self) -> None:
        export = {"nodes": [{"id": 1, "type": "KSampler"}], "links": [], "version": 0.4}
        check_params(export, {"1.seed": 5, "Sampler.cfg": 7})
        with pytest.raises(InvalidWorkflowError, match="expected a node's id or title"):
            check_params(export, {"1": 5})


class TestValues:
    @pytest.mark.parametrize(
        ("address", "given", "value"),
        [
            ("3.seed", 2**64 - 1, 2**64 - 1),
            ("3.seed", str(2**64 - 1), 2**64 - 1),
            ("3.steps", 30.0, 30),
            ("3.steps", " 30 ", 30),
            ("3.steps", "30.0", 30),
            ("3.cfg", 7, 7),
            ("3.cfg", "7.5", 7.5),
            ("3.denoise", "1e-1", 0.1),
            ("3.sampler_name", "ddim", "ddim"),
            ("6.text", "random", "random"),
            ("6.text", 42, "42"),
            ("6.text", True, "true"),
            ("6.text", "07", "07"),
            ("10:3.value", "5", 5),
            ("11.seed", "5", "5"),
            ("11.new", {"a": 1}, {"a": 1}),
        ],
    )
    def test_a_value_becomes_what_its_input_takes(
        self, object_info: dict[str, Any], address: str, given: Any, value: Any
    ) -> None:
        params = {address: given}
        check_values(WORKFLOW, params, object_info)
        changed = apply_params(WORKFLOW, params, object_info, "job")
        node_id, _, name = address.rpartition(".")
        found = changed[node_id]["inputs"][name]
        assert (found, type(found)) == (value, type(value))

    def test_nothing_else_changes(self, object_info: dict[str, Any]) -> None:
        before = json.dumps(WORKFLOW)
        changed = apply_params(
            WORKFLOW, {"6.text": "a cat", "4.ckpt_name": "y"}, object_info, "job"
        )
        assert changed["6"]["inputs"] == {"text": "a cat", "clip": ["4", 1]}
        assert changed["3"] is WORKFLOW["3"]
        assert json.dumps(WORKFLOW) == before

    def test_a_list_is_no_link(self) -> None:
        changed = apply_params(WORKFLOW, {"11.of": ["a", "b"]}, {}, "job")
        assert changed["11"]["inputs"]["of"] == {"__value__": ["a", "b"]}

    @pytest.mark.parametrize(
        ("params", "sentence"),
        [
            ({"3.sed": 1}, "param '3.sed': node 3 (KSampler): has no input 'sed', did you mean"),
            ({"3.steps": 0}, "input steps: found 0, expected a whole number from 1 to 10000"),
            ({"3.steps": 1.5}, "input steps: found 1.5, expected a whole number from 1 to 10000"),
            ({"3.steps": True}, "input steps: found True, expected a whole number"),
            ({"3.steps": "1_0"}, "input steps: found '1_0', expected a whole number"),
            ({"3.steps": None}, "input steps: found None, expected a whole number"),
            ({"3.steps": "random"}, "input steps: found 'random', expected a whole number"),
            ({"3.steps": 10**400}, "expected a whole number from 1 to 10000"),
            ({"3.cfg": 10**400}, "expected a number from 0.0 to 100.0"),
            ({"3.cfg": "nan"}, "input cfg: found 'nan', expected a number from 0.0 to 100.0"),
            ({"3.cfg": 101}, "input cfg: found 101, expected a number from 0.0 to 100.0"),
            ({"3.sampler_name": "eular"}, "one of its 42 choices, did you mean 'euler'?"),
            ({"3.latent_image": 1}, "input latent_image: takes LATENT by a link, and no value"),
            ({"6.text": {"a": 1}}, "input text: found {'a': 1}, expected text"),
        ],
    )
    def test_what_does_not_fit_is_refused(
        self, object_info: dict[str, Any], params: dict[str, Any], sentence: str
    ) -> None:
        # It is set all the same: another server may take it.
        apply_params(WORKFLOW, params, object_info, "job")
        with pytest.raises(InvalidWorkflowError) as caught:
            check_values(WORKFLOW, params, object_info)
        assert sentence in caught.value.message

    @pytest.mark.parametrize(
        ("description", "given", "value"),
        [
            (["BOOLEAN", {}], "TRUE", True),
            (["BOOLEAN", {}], False, False),
            ([["1", "2"], {}], 1, "1"),
            ([[1, 2], {}], "2", 2),
            ([[True, "x"], {}], "true", True),
            (["INT,FLOAT", {}], 1.5, 1.5),
            (["STRING,INT", {}], 5, 5),
            (["STRING,INT", {}], "5", "5"),
            (["*", {}], "5", "5"),
            (["COLOR", {}], "#fff", "#fff"),
        ],
    )
    def test_forms_of_types(self, description: Any, given: Any, value: Any) -> None:
        of_one = {"1": {"class_type": "A", "inputs": {}}}
        info = {"A": {"input": {"required": {"x": description}}}}
        check_values(of_one, {"1.x": given}, info)
        found = apply_params(of_one, {"1.x": given}, info, "job")["1"]["inputs"]["x"]
        assert (found, type(found)) == (value, type(value))

    @pytest.mark.parametrize("value", ["yes", 1, "1", None])
    def test_what_is_neither_true_nor_false(self, value: object) -> None:
        of_one = {"1": {"class_type": "A", "inputs": {}}}
        info = {"A": {"input": {"required": {"x": ["BOOLEAN", {}]}}}}
        with pytest.raises(InvalidWorkflowError, match="expected true or false"):
            check_values(of_one, {"1.x": value}, info)

    def test_an_input_of_the_ui_stays_settable(self, object_info: dict[str, Any]) -> None:
        shown = {"1": {"class_type": "PreviewAny", "inputs": {"preview": ""}}}
        check_values(shown, {"1.preview": "x"}, object_info)


RANDOM = {"Sampler v1.5.seed": "random", "10:3.value": "random", "11.seed": "random"}


class TestSeeds:
    def test_a_seed_depends_on_job_and_input_alone(self, object_info: dict[str, Any]) -> None:
        def seeds(job_id: str) -> dict[str, int]:
            changed = apply_params(WORKFLOW, RANDOM, object_info, job_id)
            check_values(WORKFLOW, RANDOM, object_info)
            return seeds_in({}, changed, RANDOM)

        first = seeds("a")
        # 10:3 has `control_after_generate`, and 11 is of a class that is not known.
        assert list(first) == ["3.seed", "10:3.value", "11.seed"]
        assert len(set(first.values())) == 3
        assert all(0 <= seed < 2**53 for seed in first.values())
        assert seeds("a") == first
        assert not set(seeds("b").values()) & set(first.values())
        by_id = apply_params(WORKFLOW, {"3.seed": "random"}, object_info, "a")
        assert by_id["3"]["inputs"]["seed"] == first["3.seed"]

    @pytest.mark.parametrize(
        ("options", "low", "high"),
        [
            ({"min": 5, "max": 6}, 5, 6),
            ({"min": -1, "max": 3}, 0, 3),
            ({"min": -9, "max": -7}, -9, -7),
            ({"min": 2**60, "max": 2**60 + 1}, 2**60, 2**60 + 1),
            ({"max": 0}, 0, 0),
        ],
    )
    def test_a_seed_is_in_the_range_of_its_input(
        self, options: dict[str, int], low: int, high: int
    ) -> None:
        of_one = {"1": {"class_type": "A", "inputs": {"seed": 1}}}
        info = {"A": {"input": {"required": {"seed": ["INT", options]}}}}
        made = {
            apply_params(of_one, {"1.seed": "random"}, info, str(job))["1"]["inputs"]["seed"]
            for job in range(40)
        }
        assert min(made) == low
        assert max(made) == high

    def test_what_the_server_executed_is_what_is_told(self) -> None:
        params = {"3.seed": "random", "6.text": "random", "4.ckpt_name": "x"}
        submitted = apply_params(WORKFLOW, params, {}, "job")
        executed = {"3": {"inputs": {"seed": 77}}, "6": {"inputs": {"text": "random"}}}
        assert seeds_in(executed, submitted, params) == {"3.seed": 77}
        assert seeds_in({"3": None}, submitted, params) == {}
        assert set(seeds_in({}, submitted, params)) == {"3.seed"}
        # Adopted from a server whose nodes are not known here: it tells what it has executed.
        assert seeds_in(submitted, {}, params).keys() == {"3.seed"}

    @pytest.mark.parametrize("executed", [{}, {"3": {}}, {"4": WORKFLOW["4"]}])
    def test_nothing_fails_for_seeds_that_cannot_be_told(self, executed: dict[str, Any]) -> None:
        assert seeds_in(executed, {}, {"3.seed": "random"}) == {}
