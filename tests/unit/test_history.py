from typing import Any

import pytest

from tasks.errors import (
    HistoryUnreadableError,
    JobError,
    NodeFailedError,
    OutOfMemoryError,
    OutputMissingError,
    PromptInterruptedError,
)
from tests.recordings import VERSIONS, history_entry, recorded_outputs
from workers.comfyui.history import (
    failure_in,
    out_of_bounds,
    output_files,
    overwritten,
    shown_values,
)
from workers.comfyui.model import FileRef

pytestmark = pytest.mark.parametrize("version", VERSIONS)


def test_a_success(version: str) -> None:
    workflow, entry = history_entry(version, "success")
    assert failure_in(entry, workflow) is None
    files = output_files(entry, include_temp=False)
    assert [(f.node_id, f.kind, f.index, f.file.filename) for f in files] == [
        ("2", "images", 0, "demo_00001_.png"),
        ("2", "images", 1, "demo_00002_.png"),
    ]
    assert files[0].file == FileRef("demo_00001_.png", "shots", "output")
    assert shown_values(entry) == {}


def test_previews_only_on_request(version: str) -> None:
    _, entry = history_entry(version, "preview node")
    assert output_files(entry, include_temp=False) == []
    (preview,) = output_files(entry, include_temp=True)
    assert preview.file.type == "temp"


@pytest.mark.parametrize(
    ("scenario", "leaf", "sentence"),
    [
        (
            "a node raises",
            NodeFailedError,
            "node 1 (BarsRender) raised ValueError: bars: deliberate node failure",
        ),
        (
            "out of memory",
            OutOfMemoryError,
            "node 1 (BarsRender) ran out of memory: "
            "torch.OutOfMemoryError: bars: deliberate out of memory",
        ),
        (
            "interrupt the running prompt",
            PromptInterruptedError,
            "the prompt was interrupted on the ComfyUI server",
        ),
    ],
)
def test_failures(version: str, scenario: str, leaf: type[JobError], sentence: str) -> None:
    workflow, entry = history_entry(version, scenario)
    failure = failure_in(entry, workflow)
    assert type(failure) is leaf
    assert failure.message == sentence


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"status": None},
        {"status": {"status_str": "error"}},
        {"status": {"status_str": "error", "messages": "none"}},
        {"status": {"status_str": "error", "messages": [None, [], ["x"], ["execution_error", 5]]}},
    ],
)
def test_entries_of_another_form_cannot_be_read(version: str, entry: Any) -> None:  # noqa: ARG001
    assert type(failure_in(entry, {})) is HistoryUnreadableError


def test_what_cannot_be_encoded_is_made_so(version: str) -> None:  # noqa: ARG001
    text, number = [{"a": "x\ud800"}], [float("nan")]
    entry = {"outputs": {"7": {"text": text, "n": number, "images": [{"filename": "a\udcff.png"}]}}}
    assert shown_values(entry) == {"7": {"text": [{"a": "x?"}], "n": ["nan"]}}
    (file,) = output_files(entry, include_temp=False)
    assert file.file.filename == "a?.png"


def test_any_list_of_objects_with_a_filename_is_files(version: str) -> None:  # noqa: ARG001
    entry = {
        "outputs": {
            "7": {
                "gifs": [{"filename": "a.mp4", "subfolder": "v", "type": "output", "fps": 8}],
                "3d": [{"filename": "m.glb"}],
                "again": [{"filename": "a.mp4", "subfolder": "v", "type": "output"}],
                "animated": [True],
                "text": ["a cat"],
                "odd": "no list",
            },
            "8": {"images": [{"filename": ""}, {"name": "x"}, 5, None]},
            "9": None,
        }
    }
    found = [(f.node_id, f.kind, f.index, f.file) for f in output_files(entry, include_temp=False)]
    assert found == [
        ("7", "gifs", 0, FileRef("a.mp4", "v")),
        ("7", "3d", 1, FileRef("m.glb")),
    ]
    values = shown_values(entry)
    assert values["7"] == {"animated": [True], "text": ["a cat"], "odd": "no list"}
    assert "9" not in values


def test_files_are_found_wherever_a_node_put_them(version: str) -> None:  # noqa: ARG001
    video = {"filename": "a.mp4", "type": "output", "fullpath": "/srv/a.mp4", "frame_rate": 8.0}
    entry = {
        "outputs": {
            "7": {
                "single": {"filename": "b.wav"},
                "ui": {
                    "gifs": [video],
                    "count": 1,
                    "note": None,
                    "list": [[{"filename": "c.png"}]],
                },
                "result": ["3d/mesh.glb", None, {"camera": "front"}],
                "mixed": [{"filename": "d.png"}, "left out"],
                "deep": nested({"filename": "e.png"}, 40),
                "too deep": nested({"filename": "f.png"}, 60),
            },
        }
    }
    found = [(file.kind, file.file.filename) for file in output_files(entry, include_temp=False)]
    assert found == [
        *[("single", "b.wav"), ("gifs", "a.mp4"), ("list", "c.png"), ("mixed", "d.png")],
        ("deep", "e.png"),
    ]
    values = shown_values(entry)["7"]
    assert values.pop("too deep")
    assert values == {
        "ui": {"count": 1, "note": None},
        # Paths are what viewers of meshes show; files they are only where a node says so.
        "result": ["3d/mesh.glb", None, {"camera": "front"}],
    }


def nested(value: Any, levels: int) -> Any:
    return [nested(value, levels - 1)] if levels else value


def test_a_file_that_is_named_more_than_once_is_that_of_the_first(version: str) -> None:  # noqa: ARG001
    video, preview = {"filename": "a.mp4"}, {"filename": "a.mp4", "type": "temp"}
    outputs = {"7": {"images": [video, video], "gifs": [video]}, "8": {"video": [video, preview]}}
    found = output_files({"outputs": outputs}, include_temp=True)
    assert [(one.node_id, one.kind, one.index, one.file.type) for one in found] == [
        ("7", "images", 0, "output"),
        # Of the same name, in another folder of the server.
        ("8", "video", 0, "temp"),
    ]


@pytest.mark.parametrize("value", ["a cat", 3, 2.5, True, None, [], {}, [None], {"a": {}}, [[1]]])
def test_what_nodes_show_stays_as_it_is(version: str, value: Any) -> None:  # noqa: ARG001
    assert shown_values({"outputs": {"7": {"shown": value}}}) == {"7": {"shown": value}}


@pytest.mark.parametrize("include_temp", [False, True])
def test_previews_are_values_never(version: str, include_temp: bool) -> None:  # noqa: ARG001
    entry = {"outputs": {"7": {"images": [{"filename": "a.png", "type": "temp"}]}}}
    assert len(output_files(entry, include_temp=include_temp)) == include_temp
    assert shown_values(entry) == {}


@pytest.mark.parametrize("name", recorded_outputs())
def test_every_kind_that_a_server_makes_is_a_file(version: str, name: str) -> None:  # noqa: ARG001
    output, _ = recorded_outputs()[name]
    (file,) = output_files({"outputs": {"2": output}}, include_temp=False)
    kinds = {"SaveLatent": "latents", "SaveGLB": "3d"} | dict.fromkeys(
        ("SaveAudio", "SaveAudioMP3", "SaveAudioOpus"), "audio"
    )
    assert (file.kind, file.file.subfolder) == (kinds.get(name, "images"), "kinds")
    animated = {"animated": [True]} if "animated" in output else None
    assert shown_values({"outputs": {"2": output}}).get("2") == animated


def both_name(*files: FileRef, cached: list[str]) -> dict[str, Any]:
    """An entry of nodes 1, 2, ... each of which names a file."""
    outputs = {
        str(number): {"images": [{"filename": file.filename, "type": file.type}]}
        for number, file in enumerate(files, 1)
    }
    messages = [["execution_cached", {"nodes": cached}]]
    return {"outputs": outputs, "status": {"status_str": "success", "messages": messages}}


@pytest.mark.parametrize("cached", ["1", "2"])
def test_a_file_from_the_cache_that_another_node_has_made_is_gone(
    version: str,  # noqa: ARG001
    cached: str,
) -> None:
    entry = both_name(FileRef("a.png"), FileRef("a.png"), FileRef("b.png"), cached=[cached, "3"])
    error = overwritten(entry, include_temp=False)
    assert type(error) is OutputMissingError
    assert "nodes 1 and 2 name the same file 'a.png'" in error.message


@pytest.mark.parametrize("cached", [[], ["1", "2"]], ids=["both made it", "both have it cached"])
def test_a_file_that_two_nodes_name_is_one(version: str, cached: list[str]) -> None:  # noqa: ARG001
    entry = both_name(FileRef("a.png"), FileRef("a.png"), cached=cached)
    assert overwritten(entry, include_temp=False) is None
    assert len(output_files(entry, include_temp=False)) == 1


def test_what_is_not_wanted_may_be_gone(version: str) -> None:  # noqa: ARG001
    preview = FileRef("p.png", type="temp")
    entry = both_name(preview, preview, cached=["1"])
    assert overwritten(entry, include_temp=False) is None
    assert overwritten(entry, include_temp=True) is not None


def test_what_nodes_only_show_is_made_by_nobody(version: str) -> None:  # noqa: ARG001
    given = FileRef("given.png", type="input")
    entry = both_name(given, given, cached=["1"])
    assert overwritten(entry, include_temp=False) is None


def test_a_cached_prompt_has_all_its_files(version: str) -> None:
    _, entry = history_entry(version, "same workflow again")
    assert output_files(entry, include_temp=False)
    assert overwritten(entry, include_temp=False) is None


@pytest.mark.parametrize(
    ("subfolder", "name"),
    [
        ("../..", "a.png"),
        ("", "../a.png"),
        ("a/../../b", "c.png"),
        ("/etc", "x"),
        ("..\\x", "a"),
        ("", "/etc/passwd"),
    ],
)
def test_a_file_outside_of_the_servers_folders_is_the_nodes_fault(
    version: str,  # noqa: ARG001
    subfolder: str,
    name: str,
) -> None:
    file = {"filename": name, "subfolder": subfolder, "type": "output"}
    fault = out_of_bounds({"outputs": {"9": {"images": [file]}}}, include_temp=False)
    assert isinstance(fault, NodeFailedError)
    assert "node 9 names the file" in fault.message


@pytest.mark.parametrize("subfolder", ["", "shots/1", "a..b", "..."])
def test_a_file_in_a_folder_is_no_fault(version: str, subfolder: str) -> None:  # noqa: ARG001
    file = {"filename": "a..png", "subfolder": subfolder, "type": "output"}
    assert out_of_bounds({"outputs": {"9": {"images": [file]}}}, include_temp=False) is None
