"""An export of ComfyUI's UI as one typed graph, of whichever schema."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MUTED = 2
BYPASSED = 4


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


def first_value(node: Node) -> Any:
    """The value of the first widget, None without one."""
    match node.widgets_values:
        case [first, *_]:
            return first
    return None
