"""A node's inputs and the values of its widgets, by what its class has in the UI."""

import re
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from workers.conversion.graph import Node, Slot
from workers.conversion.node_classes import MISSING, Missing, NodeClass, Widget
from workers.conversion.packs import pack_values

_FOLDER_NAMED = re.compile(r"\[(input|output|temp)\]", re.IGNORECASE)


def slots(node: Node, node_class: NodeClass | None) -> tuple[Slot, ...]:
    """A node's inputs, in the frontend's order: sockets, widgets, then what only the file has.

    Links go with the name: the file may be of another version of the class.
    """
    if node_class is None:
        return node.inputs
    saved = {slot.name: slot for slot in node.inputs}
    links = {name: slot.link for name, slot in saved.items()}
    sockets = [replace(slot, link=links.get(slot.name)) for slot in node_class.sockets]
    behind = [
        Slot(name, kind, links.get(name), widget=name)
        for name, kind in node_class.widget_types.items()
    ]
    known = {slot.name for slot in sockets} | set(node_class.widget_types)
    extra = [
        slot
        for slot in node.inputs
        if slot.name not in known and (slot.widget is None or slot.name in node_class.branched)
    ]
    return (*sockets, *behind, *extra)


def widget_values(node: Node, node_class: NodeClass) -> dict[str, Any]:
    """The value of each widget that is sent: the saved one, or else the default."""
    values = dict(_values(node_class, _saved_values(node, node_class)))
    for widget in node_class.widgets:
        if widget.folder is not None:
            values[widget.name] = _as_file(values[widget.name], widget)
    if node.type in ("KSampler", "KSamplerAdvanced"):
        sampler = values.get("sampler_name")
        if isinstance(sampler, str):
            values["sampler_name"] = sampler.removeprefix("sample_")
    return {**values, **pack_values(node)}


def _values(node_class: NodeClass, saved: Callable[[Widget], Any]) -> Iterator[tuple[str, Any]]:
    waiting = deque(node_class.widgets)
    while waiting:
        widget = waiting.popleft()
        value = saved(widget)
        if widget.is_sent:
            yield widget.name, value
        if widget.branches and isinstance(value, str):
            waiting.extendleft(reversed(widget.branches.get(value, ())))


def _saved_values(node: Node, node_class: NodeClass) -> Callable[[Widget], Any]:
    """What gives each widget's value, if they are asked for in their order."""
    saved = node.widgets_values
    if isinstance(saved, dict):
        return lambda widget: saved.get(widget.name, widget.default)
    places = iter(_without_forced(saved or [], node_class))
    return lambda widget: next(places, widget.default) if widget.is_saved else widget.default


def _without_forced(saved: list[Any], node_class: NodeClass) -> list[Any]:
    # Frontends before 1.16 saved a value for forced inputs too; only the count tells.
    if len(saved) != node_class.old_values:
        return saved
    # The frontend counts inputs here, not values: controls shift what it leaves out.
    forced = node_class.forced
    return [value for index, value in enumerate(saved) if index >= len(forced) or not forced[index]]


def _as_file(value: Any, widget: Widget) -> Any:
    """A file as the frontend names it: with its folder, if that isn't the usual one."""
    folder = widget.folder or "input"
    default = "undefined" if widget.default is MISSING else widget.default
    match value:
        case [first, *_] if not widget.is_batch:
            return _annotated(first, folder)
        case [_, *_]:
            return [_annotated(one, folder) for one in value]
        case str() if value:
            return _annotated(value, folder)
        case None | "" | False | [] | Missing():
            return _annotated(default, folder) if value is MISSING else default
    return value


def _annotated(value: Any, folder: str) -> Any:
    is_usual = folder == "input" or not isinstance(value, str) or _FOLDER_NAMED.search(value)
    return value if is_usual else f"{value} [{folder}]"
