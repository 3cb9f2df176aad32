"""Names of input files, and where the workflow uses them."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tasks.errors import InvalidInputError
from tasks.request import shown
from tasks.workflow import Workflow, is_link

_FOLDER = "comfyfleet"
_MOST_PART_BYTES = 200
_MOST_BYTES = 512
# What separates folders, drives and streams on the servers that have them.
_SEPARATORS = re.compile(r"[\\:]")
# How loaders are told another folder: in a file's own name it would lead them there.
_NOTE = re.compile(r"\[(input|output|temp)\]$")
_INPUT = " [input]"


def check_name(name: str) -> None:
    """Refuse a name that is none of a file below its folder, on whatever system.

    Raises:
        InvalidInputError: says what is wrong with it.
    """
    if fault := next(_faults_in(name), None):
        raise InvalidInputError(f"input {shown(name)}: is no name of a file: {fault}")


def place_of(name: str, digest: str) -> tuple[str, str]:
    """Folder and name under which a file of this content lies: no other one has both."""
    *folders, filename = name.split("/")
    return "/".join((_FOLDER, digest, *folders)), filename


def users_of(workflow: Workflow, names: Iterable[str]) -> dict[str, list[str]]:
    """The ids of the nodes that use each file, also as one of several, also as `name [input]`."""
    users: dict[str, list[str]] = {name: [] for name in names}
    meant = {spelling: name for name in users for spelling in (name + _INPUT, name)}
    for node_id, node in workflow.items():
        for name in {meant[text] for text in _texts(node["inputs"]) if text in meant}:
            users[name].append(node_id)
    return users


def with_names(workflow: Workflow, placed: Mapping[str, str]) -> dict[str, Any]:
    """The workflow that uses each file where it was placed."""
    names = {**placed, **{name + _INPUT: place + _INPUT for name, place in placed.items()}}
    return {
        node_id: {
            **node,
            "inputs": {name: _renamed(value, names) for name, value in node["inputs"].items()},
        }
        for node_id, node in workflow.items()
    }


def _faults_in(name: str) -> Iterator[str]:
    parts = name.split("/")
    if not name.isprintable():
        yield "it has control characters in it"
    if _SEPARATORS.search(name):
        yield "it has a backslash or a colon in it"
    if any(part in ("", ".", "..") for part in parts):
        yield "it leaves its folder, or has an empty part"
    # Windows drops them.
    if any(part != part.strip() or part.endswith(".") for part in parts):
        yield "a part of it begins or ends with a space, or ends with a dot"
    if _NOTE.search(name):
        yield "it ends with the note of a folder"
    if len(name.encode()) > _MOST_BYTES or any(len(p.encode()) > _MOST_PART_BYTES for p in parts):
        yield f"it has more than {_MOST_BYTES} bytes, or {_MOST_PART_BYTES} between its slashes"


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _texts(part)
    elif isinstance(value, list) and not is_link(value):
        for part in value:
            yield from _texts(part)


def _renamed(value: object, names: Mapping[str, str]) -> object:
    if isinstance(value, str):
        return names.get(value, value)
    if isinstance(value, Mapping):
        return {key: _renamed(part, names) for key, part in value.items()}
    if isinstance(value, list) and not is_link(value):
        return [_renamed(part, names) for part in value]
    return value
