"""Reading a history entry: how a prompt ended, which files it made, what its nodes showed."""

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tasks.errors import (
    HistoryUnreadableError,
    JobError,
    NodeFailedError,
    OutOfMemoryError,
    OutputMissingError,
    PromptInterruptedError,
)
from tasks.request import label, shown
from tasks.workflow import Workflow, node_name
from workers.comfyui.model import FileRef

# Deeper than anything that a node shows to a person.
_MOST_LEVELS = 50
# Values go into the result and the manifest: so many characters of JSON in all.
_MOST_SHOWN = 4_000_000
_MOST_REASON = 600
_SEPARATOR = re.compile(r"[/\\]")
# Milliseconds since 1970, in the year 5138: no clock shows more.
_LATEST = 10**14
_NOTHING = object()


@dataclass(frozen=True)
class OutputFile:
    """A file that a node made."""

    node_id: str
    kind: str
    index: int
    file: FileRef


def failure_in(entry: Mapping[str, Any], workflow: Workflow) -> JobError | None:
    """How the prompt failed, or None if it succeeded.

    An interrupted prompt also has the status `error`; only its messages tell the difference.
    """
    status = entry.get("status")
    if not isinstance(status, Mapping):
        return HistoryUnreadableError("the history entry has no status")
    if status.get("status_str") == "success":
        return None
    messages = dict(_messages(status))
    if "execution_interrupted" in messages:
        return PromptInterruptedError("the prompt was interrupted on the ComfyUI server")
    error = messages.get("execution_error")
    if error is None:
        return HistoryUnreadableError(
            f"the prompt ended as {shown(status.get('status_str'))} and ComfyUI does not say why"
        )
    return _execution_error(error, workflow)


def executed_workflow(entry: Mapping[str, Any]) -> Workflow:
    """The workflow as the server executed it; empty if it does not tell."""
    match entry.get("prompt"):
        case [_, _, Mapping() as workflow, *_]:
            return workflow
    return {}


def output_files(entry: Mapping[str, Any], *, include_temp: bool) -> list[OutputFile]:
    """Every file in the entry, each once, numbered from 0 within its node.

    Any object with a `filename`, wherever a node put it, is a file. One that is named more than
    once is that of the first node and list to name it.
    """
    files: list[OutputFile] = []
    seen: set[FileRef] = set()
    # By the id as it is shown: two that cannot be encoded may look the same.
    count = Counter[str]()
    for node_id, kind, file in _files(entry, include_temp=include_temp):
        if file not in seen:
            seen.add(file)
            files.append(OutputFile(node_id, kind, count[node_id], file))
            count[node_id] += 1
    return files


def out_of_bounds(entry: Mapping[str, Any], *, include_temp: bool) -> JobError | None:
    """What is wrong with a file of which a node says that it lies outside of the server's folders.

    Servers do not show such files, whoever asks (`/view` answers 403).
    """
    for node_id, _, file in _files(entry, include_temp=include_temp):
        place = "/".join(part for part in (file.subfolder, file.filename) if part)
        parts = _SEPARATOR.split(place)
        if not parts[0] or ".." in parts or _SEPARATOR.match(file.filename):
            return NodeFailedError(
                f"node {label(node_id)} names the file {shown(place)}, "
                "which is outside of the server's folders"
            )
    return None


def overwritten(entry: Mapping[str, Any], *, include_temp: bool) -> JobError | None:
    """What is wrong with a file that a node has from the cache though another has just made it.

    Names begin again when an output folder was emptied, while the cache still has the old ones.
    """
    cached = _cached(entry)
    made_by: dict[FileRef, str] = {}
    for node_id, _, file in _files(entry, include_temp=include_temp):
        if file.type == "input":
            # Nobody makes these; nodes only show them.
            continue
        other = made_by.setdefault(file, node_id)
        if (other in cached) != (node_id in cached):
            return OutputMissingError(
                f"nodes {label(other)} and {label(node_id)} name the same file "
                f"{shown(file.filename)}: one of them has it from a cache older than the file"
            )
    return None


def shown_values(entry: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What nodes showed that is no file: node id to name to value.

    Flags that say something of files, such as `animated`, are values too. What is too long for a
    result becomes "...".
    """
    values: dict[str, dict[str, Any]] = {}
    room = _MOST_SHOWN
    for node_id, output in _mapping_items(entry.get("outputs")):
        for name, value in _mapping_items(output):
            left = _without_files(value)
            if left is _NOTHING:
                continue
            whole = _encodable(left)
            named = len(node_id) + len(name)
            size = named + len(json.dumps(whole))
            value_or_less = whole if size <= room else "..."
            room -= size if size <= room else named + len("...")
            if room < 0:
                return values
            values.setdefault(node_id, {})[name] = value_or_less
    return values


def executed_at(entry: Mapping[str, Any]) -> tuple[float, float] | None:
    """When the prompt began and ended, in seconds since 1970 by the server's clock, if it says."""
    status = entry.get("status")
    times = [
        data["timestamp"] / 1000
        for _, data in (_messages(status) if isinstance(status, Mapping) else ())
        if isinstance(data.get("timestamp"), int) and 0 <= data["timestamp"] < _LATEST
    ]
    return (times[0], times[-1]) if times else None


def _files(entry: Mapping[str, Any], *, include_temp: bool) -> Iterator[tuple[str, str, FileRef]]:
    """Each mention of a file, with its node and what that calls it."""
    for node_id, output in _mapping_items(entry.get("outputs")):
        for name, value in _mapping_items(output):
            for kind, file in _files_in(value, name):
                if file.type != "temp" or include_temp:
                    yield node_id, kind, file


def _files_in(value: Any, kind: str, depth: int = 0) -> Iterator[tuple[str, FileRef]]:
    """Each file in a value, with the name that is nearest to it."""
    if (file := _file(value)) is not None:
        yield kind, file
    elif depth > _MOST_LEVELS:
        return
    elif isinstance(value, Mapping):
        for name, item in _mapping_items(value):
            yield from _files_in(item, name, depth + 1)
    elif isinstance(value, list):
        for item in value:
            yield from _files_in(item, kind, depth + 1)


def _without_files(value: Any, depth: int = 0) -> Any:
    """A value without lists of files and single ones; `_NOTHING` if that is all there is."""
    if _file(value) is not None:
        return _NOTHING
    left: Any
    match value:
        case list() if any(_file(item) is not None for item in value):
            return _NOTHING
        case list() if depth <= _MOST_LEVELS:
            shorter = (_without_files(item, depth + 1) for item in value)
            left = [item for item in shorter if item is not _NOTHING]
        case dict() if depth <= _MOST_LEVELS:
            smaller = ((name, _without_files(item, depth + 1)) for name, item in value.items())
            left = {name: item for name, item in smaller if item is not _NOTHING}
        case _:
            return value
    return left if left or not value else _NOTHING


def _cached(entry: Mapping[str, Any]) -> set[str]:
    """The nodes that were answered from the server's cache."""
    status = entry.get("status")
    messages = dict(_messages(status)) if isinstance(status, Mapping) else {}
    match messages.get("execution_cached"):
        case {"nodes": list(nodes)}:
            return {_text(node) for node in nodes if isinstance(node, str)}
        case _:
            return set()


def _execution_error(error: Mapping[str, Any], workflow: Workflow) -> JobError:
    where = node_name(workflow, _string(error.get("node_id")))
    kind = _string(error.get("exception_type"))
    lines = _string(error.get("exception_message") or "")[:_MOST_REASON].strip().splitlines()
    reason = label(f"{kind}: {lines[0]}" if lines else kind, _MOST_REASON)
    if kind.endswith("OutOfMemoryError"):
        return OutOfMemoryError(f"{where} ran out of memory: {reason}")
    return NodeFailedError(f"{where} raised {reason}")


def _string(value: Any) -> str:
    return value if isinstance(value, str) else shown(value)


def _messages(status: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    messages = status.get("messages")
    for message in messages if isinstance(messages, list) else ():
        match message:
            case [str(name), Mapping() as data]:
                yield name, data


def _mapping_items(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        yield from ((_text(key), item) for key, item in value.items())


def _encodable(value: Any, depth: int = 0) -> Any:
    if depth > _MOST_LEVELS:
        return "..."
    match value:
        case str():
            return _text(value)
        case float() if not math.isfinite(value):
            return str(value)
        case list():
            return [_encodable(item, depth + 1) for item in value]
        case dict():
            return {_text(key): _encodable(item, depth + 1) for key, item in value.items()}
        case _:
            return value


def _text(text: str) -> str:
    # JSON can name half of a character pair, which no encoding has.
    return text.encode("utf-8", "replace").decode()


def _file(item: Any) -> FileRef | None:
    match item:
        case {"filename": str(filename)} if filename:
            subfolder, kind = item.get("subfolder") or "", item.get("type") or "output"
            if isinstance(subfolder, str) and isinstance(kind, str):
                return FileRef(_text(filename), _text(subfolder), _text(kind))
    return None
