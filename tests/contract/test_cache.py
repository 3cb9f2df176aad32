"""When a node is not run again, and what a client sees of it.

Observed on a running 0.3.64 where the recordings are silent.
"""

from io import BytesIO
from typing import Any

import pytest
from PIL import Image

from .comfyui import (
    ComfyUI,
    bars,
    bars_and_save,
    colour,
    eventually,
    history_messages,
    invert,
    save,
    show,
    types,
    unique,
)

pytestmark = pytest.mark.contract


def cached(entry: dict[str, Any]) -> list[str]:
    return sorted(history_messages(entry)["execution_cached"]["nodes"])


def files(entry: dict[str, Any], node_id: str = "2") -> Any:
    return entry["outputs"][node_id]["images"]


def test_identical_workflow_is_answered_with_the_same_files(comfyui: ComfyUI) -> None:
    workflow, client_id = bars_and_save(), unique()
    first = comfyui.run(workflow)
    with comfyui.listen(client_id) as listener:
        prompt_id = comfyui.submit(workflow, client_id=client_id)
        heard = listener.until_done(prompt_id)
    second = comfyui.finished(prompt_id)
    assert cached(second) == ["1", "2"]
    assert files(second) == files(first)
    assert "progress" not in types(heard)
    assert [m["data"]["node"] for m in heard if m["type"] == "executing"] == [None]
    assert [m["data"]["node"] for m in heard if m["type"] == "executed"] == ["2"]


def test_server_does_not_look_whether_a_cached_file_is_still_the_same(comfyui: ComfyUI) -> None:
    workflow = bars_and_save()
    (file,) = files(comfyui.run(workflow, client_id="me"))
    replaced = comfyui.upload(file["filename"], b"something else", type="output", overwrite="true")
    assert replaced.json()["name"] == file["filename"]
    (again,) = files(comfyui.run(workflow, client_id="me"))
    assert again == file
    assert comfyui.get("/view", **file).content == b"something else"


def test_only_what_depends_on_a_change_is_run_again(comfyui: ComfyUI) -> None:
    workflow = {"1": bars(), "2": invert("1"), "3": save("2")}
    comfyui.run(workflow)
    changed = {**workflow, "3": save("2", unique("other"))}
    assert cached(comfyui.run(changed)) == ["1", "2"]
    assert cached(comfyui.run({**changed, "1": bars()})) == []


def test_result_is_found_again_under_another_node_id(comfyui: ComfyUI) -> None:
    image = colour()
    comfyui.run({"1": image, "2": save("1")})
    entry = comfyui.run({"7": image, "8": save("7")}, client_id="me")
    assert cached(entry) == ["7", "8"]
    assert entry["meta"]["8"]["node_id"] == "2"


def test_equal_nodes_in_one_prompt_run_once(comfyui: ComfyUI) -> None:
    image, client_id = colour(), unique()
    workflow = {"1": image, "2": save("1"), "3": image, "4": save("3")}
    with comfyui.listen(client_id) as listener:
        prompt_id = comfyui.submit(workflow, client_id=client_id)
        heard = listener.until_done(prompt_id)
    assert len([m for m in heard if m["type"] == "executing"]) == 3
    outputs = [m["data"]["output"] for m in heard if m["type"] == "executed"]
    assert outputs.count(None) == 1, "a node that shows nothing is told as executed, from the cache"
    entry = comfyui.finished(prompt_id)
    assert files(entry, "2") == files(entry, "4")


def test_unknown_input_counts_as_a_change(comfyui: ComfyUI) -> None:
    image = colour()
    comfyui.run({"1": image, "2": save("1")})
    image["inputs"]["unknown"] = 1
    assert cached(comfyui.run({"1": image, "2": save("1")})) == []


def test_title_and_extra_data_do_not_count_as_a_change(comfyui: ComfyUI) -> None:
    image = colour()
    comfyui.run({"1": image, "2": save("1")})
    titled = {"1": {**image, "_meta": {"title": "T"}}, "2": save("1")}
    extra_data: Any = {"extra_pnginfo": {"workflow": {}}}
    assert cached(comfyui.run(titled, extra_data=extra_data)) == ["1", "2"]


def test_another_prompt_makes_the_cache_forget(comfyui: ComfyUI) -> None:
    workflow = bars_and_save()
    first = comfyui.run(workflow)
    comfyui.run({"1": show("something else")})
    second = comfyui.run(workflow)
    assert cached(second) == []
    assert files(second) != files(first)


def test_nodes_that_no_output_needs_stay_cached(comfyui: ComfyUI) -> None:
    image = colour()
    comfyui.run({"1": image, "2": save("1")})
    comfyui.run({"1": image, "3": show("x")})
    assert cached(comfyui.run({"1": image, "2": save("1")})) == ["1"]


def test_failed_prompt_leaves_its_good_nodes_in_the_cache(comfyui: ComfyUI) -> None:
    image = colour()
    comfyui.run({"1": image, "2": save("1", "/not/allowed")})
    assert cached(comfyui.run({"1": image, "2": save("1")})) == ["1"]


def test_free_memory_empties_the_cache(comfyui: ComfyUI) -> None:
    workflow = bars_and_save()
    comfyui.run(workflow)
    assert comfyui.post("/free", json={"unload_models": True}).status_code == 200
    assert cached(comfyui.run(workflow)) == ["1", "2"]
    assert comfyui.post("/free", json={"free_memory": True}).status_code == 200
    # Real servers free some time after they have been asked to.
    eventually(lambda: not cached(comfyui.run(workflow)))


def test_loaded_image_is_read_again_when_its_content_changes(comfyui: ComfyUI) -> None:
    name = unique() + ".png"
    workflow = {
        "1": {"class_type": "LoadImage", "inputs": {"image": name}},
        "2": save("1"),
    }
    comfyui.upload(name, picture("red"))
    comfyui.run(workflow)
    comfyui.upload(name, picture("red"), overwrite="true")
    assert cached(comfyui.run(workflow)) == ["1", "2"]
    comfyui.upload(name, picture("blue"), overwrite="true")
    assert cached(comfyui.run(workflow)) == []


def test_cached_run_without_client_id_can_have_no_outputs(comfyui: ComfyUI) -> None:
    """Told of later versions in Comfy-Org/ComfyUI#13751; 0.3.64 does keep them."""
    workflow = bars_and_save()
    outputs = comfyui.run(workflow)["outputs"]
    entry = comfyui.run(workflow)
    assert cached(entry) == ["1", "2"]
    assert entry["outputs"] == (outputs if comfyui.version == "0.3.64" else {})
    assert comfyui.run(workflow, client_id="me")["outputs"] == outputs


def picture(name: str) -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (16, 8), name).save(buffer, "PNG")
    return buffer.getvalue()
