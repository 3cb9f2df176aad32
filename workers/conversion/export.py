"""Reading an export of ComfyUI's UI, of schema 0.4 or 1.0, into one typed graph."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tasks.errors import InvalidWorkflowError
from tasks.request import label, shown
from tasks.workflow_form import is_export

MUTED = 2
BYPASSED = 4

# Far more than people draw, little enough to be read in seconds.
_MOST_NODES = 20_000
_MOST_LINKS = 200_000
_MOST_SLOTS = 1000
# What a person's file may call a node: longer is no id, and ids are joined through subgraphs.
_MOST_ID = 100

_VERSION = re.compile(r"(\d{1,4})\.(\d{1,4})\b")

# Node classes that changed their names; the frontend reads them so as well.
_RENAMED = {
    "T2IAdapterLoader": "ControlNetLoader",
    "ConditioningAverage ": "ConditioningAverage",
    "SDV_img2vid_Conditioning": "SVD_img2vid_Conditioning",
}


@dataclass(frozen=True)
class Slot:
    """An input of a node as the export has it: `widget` is the name of the widget behind it."""

    name: str
    type: str
    link: str | None = None
    widget: str | None = None
    label: str | None = None


@dataclass(frozen=True)
class Link:
    """A line between an output of one node and an input of another."""

    id: str
    origin: str
    origin_slot: int
    target: str
    target_slot: int
    type: str = "*"


@dataclass(frozen=True)
class Node:
    """A node as the export has it; `outputs` are the types of its outputs."""

    id: str
    type: str
    title: str = ""
    mode: int = 0
    inputs: tuple[Slot, ...] = ()
    outputs: tuple[str, ...] = ()
    widgets_values: list[Any] | dict[str, Any] | None = None
    properties: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Graph:
    """Nodes and the links among them, each by its id."""

    nodes: Mapping[str, Node]
    links: Mapping[str, Link]


@dataclass(frozen=True)
class Port:
    """An input or output of a subgraph, with the links that it has inside.

    `controls` counts the widget values that follow its own, such as control_after_generate.
    """

    name: str
    type: str
    links: tuple[str, ...] = ()
    controls: int = 0


@dataclass(frozen=True)
class Subgraph:
    """A definition that nodes of the type `id` stand for.

    A group node is one as well: then its widgets stand in the order of the ports, whatever
    inputs the node shows.
    """

    id: str
    name: str
    graph: Graph
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    input_node: str = "-10"
    is_group: bool = False


@dataclass(frozen=True)
class Export:
    """An export: the graph that one sees, and what its nodes may stand for.

    `frontend` is the version that saved it, `(1, 27)`, as far as the file tells.
    """

    graph: Graph
    subgraphs: Mapping[str, Subgraph]
    group_nodes: Mapping[str, Mapping[str, Any]]
    frontend: tuple[int, int] = (0, 0)


def read_export(value: object) -> Export:
    """The export as a typed graph.

    Raises:
        InvalidWorkflowError: names what cannot be read, in one sentence.
    """
    if not isinstance(value, Mapping) or not is_export(value):
        raise InvalidWorkflowError("the workflow is no export of ComfyUI's UI: it has no nodes")
    subgraphs = {one.id: one for one in _subgraphs(value)}
    graph = read_graph(value, "the export")
    return Export(graph, subgraphs, _group_nodes(value), _frontend(value))


def read_graph(value: Mapping[str, Any], where: str) -> Graph:
    """The nodes and links of an export, or of a subgraph in it.

    Raises:
        InvalidWorkflowError: names what cannot be read, in one sentence.
    """
    items = _listed(value, "nodes", where, _MOST_NODES)
    nodes: dict[str, Node] = {}
    for item in items:
        node = read_node(item, where)
        if node.id in nodes:
            raise InvalidWorkflowError(f"{where} has two nodes with the id {label(node.id)}")
        nodes[node.id] = node
    return Graph(nodes, _links(value, where))


def read_node(item: object, where: str) -> Node:
    """One node.

    Raises:
        InvalidWorkflowError: names what cannot be read, in one sentence.
    """
    if not isinstance(item, Mapping):
        raise InvalidWorkflowError(f"{where}: found {shown(item)}, expected a node")
    node_id, class_type = as_id(item.get("id")), item.get("type")
    if node_id is None:
        raise InvalidWorkflowError(f"{where} has a node with the id {shown(item.get('id'))}")
    if not isinstance(class_type, str) or not class_type:
        raise InvalidWorkflowError(f"{where}: node {label(node_id)} has no type")
    here = f"{where}: node {label(node_id)} ({label(class_type)})"
    values = item.get("widgets_values")
    if not isinstance(values, list | dict | None):
        raise InvalidWorkflowError(f"{here} has the widgets_values {shown(values)}")
    title, properties, mode = item.get("title"), item.get("properties"), item.get("mode")
    return Node(
        id=node_id,
        type=_RENAMED.get(class_type, class_type),
        title=title if isinstance(title, str) else "",
        mode=mode if isinstance(mode, int) else 0,
        inputs=tuple(_slot(one, here) for one in _listed(item, "inputs", here, _MOST_SLOTS)),
        outputs=tuple(_output(one, here) for one in _listed(item, "outputs", here, _MOST_SLOTS)),
        widgets_values=values,
        properties=properties if isinstance(properties, Mapping) else {},
    )


def as_id(value: object) -> str | None:
    """An id of a node or link, which files have as a number or as a string."""
    match value:
        case bool():
            return None
        case int() if abs(value) < 2**63:
            return str(value)
        case float() if value.is_integer() and abs(value) < 2**53:
            return str(int(value))
        case str() if value and len(value) <= _MOST_ID:
            return value
    return None


def type_name(value: object) -> str:
    """The type of an input or output; any type is written in several ways."""
    match value:
        case str():
            return value or "*"
        case list():
            return "COMBO"
        case _:
            return "*"


def first_value(node: Node) -> Any:
    """The value of the first widget, None without one."""
    match node.widgets_values:
        case [first, *_]:
            return first
    return None


def _slot(item: object, where: str) -> Slot:
    if not isinstance(item, Mapping) or not isinstance(item.get("name"), str):
        raise InvalidWorkflowError(f"{where}: found {shown(item)}, expected an input with a name")
    match item.get("widget"):
        case {"name": str(name)}:
            widget: str | None = name
        case _:
            widget = None
    named = item.get("label")
    return Slot(
        name=item["name"],
        type=type_name(item.get("type")),
        link=as_id(item.get("link")),
        widget=widget,
        label=named if isinstance(named, str) else None,
    )


def _output(item: object, where: str) -> str:
    if not isinstance(item, Mapping):
        raise InvalidWorkflowError(f"{where}: found {shown(item)}, expected an output")
    return type_name(item.get("type"))


def _links(value: Mapping[str, Any], where: str) -> dict[str, Link]:
    links = {}
    for item in _listed(value, "links", where, _MOST_LINKS):
        # What was removed stays as null in some files.
        if item is not None:
            link = _link(item, where)
            links[link.id] = link
    return links


def _link(item: object, where: str) -> Link:
    match item:
        case [link_id, origin, origin_slot, target, target_slot, *rest]:
            kind = rest[0] if rest else "*"
        case {
            "id": link_id,
            "origin_id": origin,
            "origin_slot": origin_slot,
            "target_id": target,
            "target_slot": target_slot,
        }:
            kind = item.get("type") if isinstance(item, Mapping) else "*"
        case _:
            raise InvalidWorkflowError(f"{where}: found {shown(item)}, expected a link")
    ids = as_id(link_id), as_id(origin), as_id(target)
    slots = as_slot(origin_slot), as_slot(target_slot)
    match (*ids, *slots):
        case str(one), str(start), str(end), int(out), int(into):
            return Link(one, start, out, end, into, type_name(kind))
    raise InvalidWorkflowError(f"{where}: found {shown(item)}, expected a link")


def as_slot(value: object) -> int | None:
    """The number of an input or output."""
    match as_id(value):
        case str(digits) if digits.isdecimal() and digits.isascii() and len(digits) < 10:
            return int(digits)
    return None


def _subgraphs(value: Mapping[str, Any]) -> Iterator[Subgraph]:
    # Not by recursion: how deep they are nested is up to the file.
    waiting = [value]
    count = 0
    while waiting:
        definitions = waiting.pop().get("definitions")
        if not isinstance(definitions, Mapping):
            continue
        for item in _listed(definitions, "subgraphs", "the export", _MOST_NODES):
            subgraph = _subgraph(item)
            count += len(subgraph.graph.nodes)
            if count > _MOST_NODES:
                raise InvalidWorkflowError(f"the subgraphs have more than {_MOST_NODES} nodes")
            yield subgraph
            waiting.append(item)


def _subgraph(item: object) -> Subgraph:
    if not isinstance(item, Mapping) or not isinstance(item.get("id"), str):
        raise InvalidWorkflowError(f"found {shown(item)}, expected a subgraph with an id")
    name = item["name"] if isinstance(item.get("name"), str) else item["id"]
    where = f"subgraph {label(name)}"
    match item.get("inputNode"):
        case {"id": node_id}:
            input_node = as_id(node_id) or "-10"
        case _:
            input_node = "-10"
    return Subgraph(
        id=item["id"],
        name=name,
        graph=read_graph(item, where),
        inputs=_ports(item, "inputs", where),
        outputs=_ports(item, "outputs", where),
        input_node=input_node,
    )


def _ports(item: Mapping[str, Any], name: str, where: str) -> tuple[Port, ...]:
    return tuple(_port(one, where) for one in _listed(item, name, where, _MOST_SLOTS))


def _port(item: object, where: str) -> Port:
    if not isinstance(item, Mapping) or not isinstance(item.get("name"), str):
        raise InvalidWorkflowError(
            f"{where}: found {shown(item)}, expected an input or output with a name"
        )
    links = (as_id(one) for one in _listed(item, "linkIds", where, _MOST_LINKS))
    return Port(item["name"], type_name(item.get("type")), tuple(one for one in links if one))


def _frontend(value: Mapping[str, Any]) -> tuple[int, int]:
    match value.get("extra"):
        case {"frontendVersion": str(version)} if found := _VERSION.match(version):
            return int(found[1]), int(found[2])
    return 0, 0


def _group_nodes(value: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    match value.get("extra"):
        case {"groupNodes": Mapping() as groups}:
            return {
                name: group
                for name, group in groups.items()
                if isinstance(name, str) and isinstance(group, Mapping)
            }
    return {}


def _listed(item: Mapping[str, Any], name: str, where: str, most: int) -> list[Any]:
    found = item.get(name)
    if found is None:
        return []
    if not isinstance(found, list):
        raise InvalidWorkflowError(f"{where}: found {shown(found)} as {name}, expected a list")
    if len(found) > most:
        raise InvalidWorkflowError(f"{where} has {len(found)} {name}, at most {most} are read")
    return found
