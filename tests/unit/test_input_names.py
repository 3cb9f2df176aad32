"""Which names are those of files, where workflows use them, and what becomes of them there."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import InvalidInputError
from workers.inputs.names import check_name, place_of, users_of, with_names

DIGEST = "0" * 64


def node(**inputs: Any) -> dict[str, Any]:
    return {"class_type": "A", "inputs": inputs}


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("../a.png", "it leaves its folder"),
        ("a/../../b.png", "it leaves its folder"),
        ("..", "it leaves its folder"),
        (".", "it leaves its folder"),
        ("./a.png", "it leaves its folder"),
        ("/etc/passwd", "it leaves its folder, or has an empty part"),
        ("a//b.png", "has an empty part"),
        ("a/", "has an empty part"),
        ("", "has an empty part"),
        ("..\\a.png", "it has a backslash or a colon"),
        ("\\\\host\\share\\a.png", "it has a backslash or a colon"),
        ("C:a.png", "it has a backslash or a colon"),
        ("c:/a.png", "it has a backslash or a colon"),
        ("a.png:stream", "it has a backslash or a colon"),
        ("a\0.png", "it has control characters"),
        ("a\n.png", "it has control characters"),
        ("a\x7f.png", "it has control characters"),
        ("a\u202egnp.exe", "it has control characters"),
        ("a.png [output]", "it ends with the note of a folder"),
        ("a.png [temp]", "it ends with the note of a folder"),
        ("a.png[input]", "it ends with the note of a folder"),
        (".. /a.png", "begins or ends with a space"),
        ("a.png.", "or ends with a dot"),
        ("x" * 201, "it has more than 512 bytes, or 200 between"),
        ("\u00fc" * 101, "it has more than 512 bytes, or 200 between"),
        ("/".join(["x" * 100] * 6), "it has more than 512 bytes, or 200 between"),
    ],
)
def test_a_name_that_is_none_says_why(name: str, why: str) -> None:
    with pytest.raises(InvalidInputError, match="is no name of a file: ") as caught:
        check_name(name)
    assert why in caught.value.message


@pytest.mark.parametrize(
    "name", ["a.png", "in/a b.png", "\u00fc (1).png", "a..b.png", ".hidden", "a [x].png", "x" * 200]
)
def test_a_name(name: str) -> None:
    check_name(name)
    folder, filename = place_of(name, DIGEST)
    assert f"{folder}/{filename}" == f"comfyfleet/{DIGEST}/{name}"


@given(st.text("a.\\/:[] \0", max_size=12))
def test_no_name_leaves_its_folder(name: str) -> None:
    try:
        check_name(name)
    except InvalidInputError:
        return
    folder, filename = place_of(name, DIGEST)
    parts = f"{folder}/{filename}".split("/")
    assert parts[:2] == ["comfyfleet", DIGEST]
    assert not {"", ".", ".."} & set(parts)


def test_a_name_is_used_wherever_it_is_a_value() -> None:
    workflow = {
        "1": node(image="a.png", other="a.png"),
        "2": node(image="a.png [input]"),
        "3": node(images=["b.png", "a.png"]),
        "4": node(images={"__value__": ["a.png"]}),
        # Another file, a longer name, a link to a node of that name, and no value.
        "5": node(image="a.png [output]", text="see a.png", **{"a.png": 1}),
        "a.png": node(image=["a.png", 0]),
    }
    assert users_of(workflow, ["a.png", "b.png", "c.png"]) == {
        "a.png": ["1", "2", "3", "4"],
        "b.png": ["3"],
        "c.png": [],
    }
    assert with_names(workflow, {"a.png": "x/a.png", "b.png": "y/b.png"}) == {
        "1": node(image="x/a.png", other="x/a.png"),
        "2": node(image="x/a.png [input]"),
        "3": node(images=["y/b.png", "x/a.png"]),
        "4": node(images={"__value__": ["x/a.png"]}),
        "5": workflow["5"],
        "a.png": workflow["a.png"],
    }
    assert workflow["3"]["inputs"]["images"] == ["b.png", "a.png"]
