"""What `comfyfleet comfy` reads and prints, as functions of values."""

from typing import Any

import pytest

from cli.comfy import prompts
from cli.comfy.client import open_server
from cli.comfy.files import Folder, file_named, name_of
from cli.comfy.history import read
from cli.comfy.nodes import Input, inputs_of, pack_of
from cli.errors import CommandError
from workers.comfyui.history import executed_at, executed_workflow
from workers.comfyui.model import FileRef


@pytest.mark.parametrize(
    "file",
    [
        FileRef("a.png"),
        FileRef("a.png", "shots"),
        FileRef("a b.png", "shots/2026 11"),
        FileRef("a.png", "", "temp"),
        FileRef("a.png", "masks", "input"),
        FileRef("a [1].png", "", "temp"),
    ],
    ids=repr,
)
def test_a_file_is_found_by_the_name_that_is_printed(file: FileRef) -> None:
    assert file_named(name_of(file), None, "") == file


def test_options_say_what_a_name_does_not() -> None:
    assert file_named("a.png", Folder.INPUT, "x/") == FileRef("a.png", "x", "input")
    assert file_named("y/a.png", None, "x") == FileRef("a.png", "x/y", "output")
    # The option is more than a part of the name.
    assert file_named("a [temp]", Folder.INPUT, "") == FileRef("a [temp]", "", "input")


@pytest.mark.parametrize(
    ("name", "subfolder"),
    [
        ("../a.png", ""),
        ("x/../../a.png", ""),
        ("x\\..\\a.png", ""),
        ("/etc/passwd", ""),
        ("a.png", "../x"),
        ("a.png", "/etc"),
        ("..", ""),
        ("..", "x"),
        ("", ""),
        ("x/", ""),
        (" [temp]", ""),
    ],
)
def test_a_name_that_leads_out_is_refused(name: str, subfolder: str) -> None:
    with pytest.raises(CommandError, match="expected a file's name"):
        file_named(name, None, subfolder)


@pytest.mark.parametrize(
    ("module", "pack"),
    [
        ("nodes", "core"),
        ("comfy_extras.nodes_images", "core"),
        ("comfy_api_nodes.nodes_kling", "comfy_api_nodes.nodes_kling"),
        ("custom_nodes.ComfyUI-Impact-Pack", "ComfyUI-Impact-Pack"),
        (None, ""),
        (5, ""),
    ],
)
def test_the_pack_of_a_class(module: object, pack: str) -> None:
    assert pack_of(module) == pack


def test_inputs_in_the_old_schema_and_the_new() -> None:
    info = {
        "input": {
            "required": {
                "seed": ["INT", {"default": 0, "min": 0, "max": 9}],
                "scale": ["FLOAT", {"min": 0.5, "step": 0.1}],
                "old": [["a", "b"], {"default": "b"}],
                "new": ["COMBO", {"options": ["c", 4]}],
                "image": ["IMAGE"],
            },
            "optional": {"mask": ["MASK", {}], "odd": 5},
            "hidden": {"prompt": "PROMPT"},
        }
    }
    assert list(inputs_of(info)) == [
        Input("seed", "INT", True, 0, "0 to 9", ()),
        Input("scale", "FLOAT", True, None, "from 0.5, step 0.1", ()),
        Input("old", "COMBO", True, "b", "", ("a", "b")),
        Input("new", "COMBO", True, None, "", ("c", "4")),
        Input("image", "IMAGE", True, None, "", ()),
        Input("mask", "MASK", False, None, "", ()),
        Input("odd", "*", False, None, "", ()),
    ]


@pytest.mark.parametrize("info", [{}, {"input": 5}, {"input": {"required": []}}], ids=str)
def test_a_class_that_says_nothing_has_no_inputs(info: dict[str, Any]) -> None:
    assert list(inputs_of(info)) == []


def entry(*messages: tuple[str, Any], outcome: str = "success") -> dict[str, Any]:
    status = {"status_str": outcome, "messages": [list(message) for message in messages]}
    return {"status": status, "prompt": [1, "p", {"3": {"class_type": "KSampler"}}, {}, []]}


def test_what_a_history_entry_says() -> None:
    failed = entry(
        ("execution_start", {"timestamp": 1_700_000_000_000}),
        ("execution_cached", {"nodes": []}),
        (
            "execution_error",
            {"timestamp": 1_700_000_002_500, "node_id": "3", "exception_type": "ValueError"},
        ),
        outcome="error",
    )
    ended = read("p", failed)
    assert (ended.prompt_id, ended.at, ended.seconds) == ("p", 1_700_000_002.5, 2.5)
    assert str(ended.error) == "node 3 (KSampler) raised ValueError"


@pytest.mark.parametrize(
    "odd",
    [
        {},
        {"status": None, "prompt": None},
        entry(("execution_start", {})),
        entry(("execution_start", {"timestamp": "soon"}), ("execution_success", [])),
        # No date has that many digits.
        entry(("execution_start", {"timestamp": 10**30})),
        entry(("execution_start", {"timestamp": -1})),
    ],
    ids=str,
)
def test_an_entry_that_does_not_say_when_is_one_still(odd: dict[str, Any]) -> None:
    assert executed_at(odd) is None
    assert read("p", odd).seconds is None


@pytest.mark.parametrize("prompt", [None, [], [1, "p"], [1, "p", "x"], {}], ids=str)
def test_an_entry_without_a_workflow_has_an_empty_one(prompt: Any) -> None:
    assert executed_workflow({"prompt": prompt}) == {}


def test_the_servers_headers_go_with_every_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMFYUI_URL", "http://gpu:8188")
    monkeypatch.setenv("COMFYUI_HEADERS", '{"Authorization": "Bearer x"}')
    with open_server(None) as server:
        assert (server.base_url, server.headers) == (
            "http://gpu:8188",
            {"Authorization": "Bearer x"},
        )
    with open_server("http://other/api/") as server:
        assert (server.base_url, server.headers) == (
            "http://other/api",
            {"Authorization": "Bearer x"},
        )


class Remembering:
    """A server with some finished prompts, told page by page."""

    def __init__(self, count: int) -> None:
        self.entries: dict[str, dict[str, Any]] = {f"p{n}": {} for n in range(count)}

    def histories(self, max_items: int, offset: int) -> dict[str, dict[str, Any]]:
        return dict([*self.entries.items()][offset : offset + max_items])

    def clear_history(self) -> None:
        self.entries.clear()


@pytest.mark.parametrize("count", [0, 1, 100, 101, 250])
def test_what_is_cleared_is_counted_however_much_it_is(count: int) -> None:
    server: Any = Remembering(count)
    cleared = prompts._clear_history(server)
    assert sorted(cleared) == sorted(f"p{n}" for n in range(count))
    assert server.entries == {}
