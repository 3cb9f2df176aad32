"""What a ComfyUI server can do, small enough to keep of each server of a fleet."""

import hashlib
import json
import re
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

# For people, or of no account to what a server accepts.
_PROSE = ("description", "output_tooltips", "search_aliases")
# Ends the options that mark inputs whose choices are the files that somebody has uploaded just now.
_UPLOAD = "_upload"
_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()


class Catalog(Mapping[str, Any]):
    """The node classes of a server as `/object_info` tells them, each read when it is asked for.

    As Python values they would take twenty times the memory.
    """

    def __init__(self, texts: Mapping[str, str]) -> None:
        """Take the JSON of each class."""
        # Servers differ in few of their classes: what is equal is in memory once.
        self.texts = {name: sys.intern(text) for name, text in texts.items()}

    def __getitem__(self, class_type: str) -> Any:
        return json.loads(self.texts[class_type])

    def __iter__(self) -> Iterator[str]:
        return iter(self.texts)

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class Capabilities:
    """Node classes, and model files by folder. Equal ones have the same digest."""

    nodes: Catalog
    models: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, object_info: str, models: Mapping[str, list[str]]) -> Self:
        """What a server says.

        Args:
            object_info: its `/object_info`.
            models: what its `/models` says of each folder.

        Raises:
            ValueError: it is no JSON object.
        """
        classes = {name: _dumps(_essence(told)) for name, told in members(object_info)}
        folders = {folder: tuple(files) for folder, files in sorted(models.items()) if files}
        return cls(Catalog(classes), folders)

    @cached_property
    def digest(self) -> str:
        """Names the content."""
        hashed = hashlib.sha256(_dumps(self.models).encode())
        for name in sorted(self.nodes):
            hashed.update(f"\n{_dumps(name)}\n{self.nodes.texts[name]}".encode())
        return hashed.hexdigest()[:16]

    def packed(self) -> bytes:
        """The form in which workers tell each other."""
        # JSON has neither tabs nor line breaks of its own: a class is a line, and stays text.
        nodes = (f"{_dumps(name)}\t{text}" for name, text in self.nodes.texts.items())
        return zlib.compress("\n".join((_dumps(self.models), *nodes)).encode())

    @classmethod
    def unpacked(cls, packed: bytes) -> Self:
        """Read that form.

        Raises:
            ValueError: it is another one.
        """
        try:
            models, *nodes = zlib.decompress(packed).decode().split("\n")
        except zlib.error as error:
            raise ValueError(str(error)) from error
        texts = dict(line.split("\t", 1) for line in nodes)
        folders = {folder: tuple(files) for folder, files in json.loads(models).items()}
        return cls(Catalog({json.loads(name): text for name, text in texts.items()}), folders)


def merged(servers: Iterable[Capabilities]) -> dict[str, tuple[str, ...]]:
    """The model files of several servers, by folder."""
    files: dict[str, dict[str, None]] = {}
    for server in servers:
        for folder, names in server.models.items():
            files.setdefault(folder, {}).update(dict.fromkeys(names))
    return {folder: tuple(names) for folder, names in files.items()}


def members(text: str) -> Iterator[tuple[str, Any]]:
    """The members of a JSON object one after the other, so that they are never all in memory.

    Raises:
        ValueError: it is none.
    """
    at = _expect("{", text, 0)
    if _next(text, at) == "}":
        return
    while True:
        name, at = _DECODER.raw_decode(text, _skip(text, at))
        value, at = _DECODER.raw_decode(text, _skip(text, _expect(":", text, at)))
        yield str(name), value
        if _next(text, at) == "}":
            return
        at = _expect(",", text, at)


def _expect(mark: str, text: str, at: int) -> int:
    if _next(text, at) != mark:
        raise ValueError(f"expected {mark!r} at {at}")
    return _skip(text, at) + 1


def _next(text: str, at: int) -> str:
    at = _skip(text, at)
    return text[at : at + 1]


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _essence(told: Any) -> Any:
    """What a server says of a class, without what is for people or changes with each upload."""
    if not isinstance(told, Mapping):
        return told
    kept = {name: value for name, value in told.items() if name not in _PROSE}
    groups = kept.get("input")
    if isinstance(groups, Mapping):
        kept["input"] = {group: _plain_inputs(inputs) for group, inputs in groups.items()}
    return kept


def _plain_inputs(inputs: Any) -> Any:
    if not isinstance(inputs, Mapping):
        return inputs
    return {name: _plain_input(spec) for name, spec in inputs.items()}


def _plain_input(spec: Any) -> Any:
    match spec:
        case [kind, Mapping() as options]:
            kept = {name: value for name, value in options.items() if name != "tooltip"}
            if any(name.endswith(_UPLOAD) for name in kept):
                kind = [] if isinstance(kind, list) else kind
                kept.pop("options", None)
            return [kind, kept]
        case _:
            return spec


def _dumps(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
