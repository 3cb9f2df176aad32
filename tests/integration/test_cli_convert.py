"""`comfyfleet convert`: from a file and from a server, and what it says of files that are none."""

import json
from pathlib import Path
from typing import Any

import pytest

from sandbox.stack import Stack
from tests.command_line import Comfyfleet
from tests.stack import bars

pytestmark = pytest.mark.integration

PAIRS = Path(__file__).parents[1] / "fixtures" / "convert"
EXPORT, OBJECT_INFO = str(PAIRS / "default.ui.json"), str(PAIRS / "object_info.json")


def sent() -> Any:
    return json.loads((PAIRS / "default.api.json").read_text())


def test_with_the_nodes_of_a_file() -> None:
    ended = Comfyfleet({})("convert", EXPORT, "--object-info", OBJECT_INFO)
    assert ended.code == 0, ended
    assert ended.json == sent()


@pytest.mark.parametrize("by", ["settings", "option"])
def test_with_the_nodes_of_a_server(stack: Stack, by: str) -> None:
    if by == "settings":
        ended = Comfyfleet({"COMFYUI_URL": stack.comfyui_url})("convert", EXPORT)
    else:
        ended = Comfyfleet({})("convert", EXPORT, "--url", stack.comfyui_url)
    assert ended.code == 0, ended
    classes = {node_id: node["class_type"] for node_id, node in ended.json.items()}
    assert classes == {node_id: node["class_type"] for node_id, node in sent().items()}


def test_what_is_in_api_format_stays_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "api.json"
    file.write_text(json.dumps(bars(1)))
    # Without asking anybody.
    assert Comfyfleet({})("convert", str(file)).json == bars(1)


def test_a_file_may_be_stdin_and_need_not_be_there() -> None:
    # Nothing comes on it here.
    assert "-: the workflow's file is no PNG" in Comfyfleet({}).refused("convert", "-")
    assert "none.json: No such file" in Comfyfleet({}).refused("convert", "none.json")


def test_what_is_embedded_in_an_image_is_printed() -> None:
    image = PAIRS.parent / "embedded" / "moving.webp"
    assert Comfyfleet({})("convert", str(image)).json["3"]["class_type"] == "SaveAnimatedWEBP"


def test_a_node_that_the_server_does_not_know_is_named(stack: Stack) -> None:
    file = str(PAIRS / "flux1_krea_dev.ui.json")
    sentence = Comfyfleet({}).refused("convert", file, "--url", stack.comfyui_url)
    assert "the server does not know its class" in sentence


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("5", "workflow"),
        ("{}", "there is no workflow in it"),
        ('{"nodes": 5, "links": []}', "comfyfleet: "),
    ],
    ids=["no json", "too deep", "a number", "empty", "no export"],
)
def test_a_file_that_is_no_workflow_is_refused(tmp_path: Path, content: str, sentence: str) -> None:
    file = tmp_path / "workflow.json"
    file.write_text(content)
    told = Comfyfleet({}).refused("convert", str(file), "--object-info", OBJECT_INFO)
    assert sentence in told


@pytest.mark.parametrize("url", ["gpu:8188", "http://me:secret@127.0.0.1:1"])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    sentence = Comfyfleet({}).refused("convert", EXPORT, "--url", url)
    assert sentence.startswith("comfyfleet: --url: found ")
    assert "secret" not in sentence


def test_a_server_and_a_file_are_one_too_many() -> None:
    both = ("--object-info", OBJECT_INFO, "--url", "http://127.0.0.1:1")
    assert "only one of them" in Comfyfleet({}).refused("convert", EXPORT, *both, code=2)


def test_a_server_that_is_not_there_is_said_to_be_so() -> None:
    sentence = Comfyfleet({}).refused("convert", EXPORT, "--url", "http://127.0.0.1:1")
    assert "refused or cut the connection" in sentence
