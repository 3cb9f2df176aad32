"""Taking subgraphs apart: every node that an export stands for, and promoted widgets' values."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tasks.errors import InvalidWorkflowError
from tasks.request import label
from workers.conversion.export import Export, Graph, Node, Port, Subgraph
from workers.conversion.group_nodes import group_name, group_subgraph
from workers.conversion.widgets import MISSING, Classes, widget_values

_MOST_NODES = 20_000
_MOST_LEVELS = 50


@dataclass(frozen=True)
class Scope:
    """One use of a graph: the export's own, or a subgraph for one of the nodes that stand for it.

    `prefix` precedes its nodes' ids in the API format: `5:` for what node 5 stands for.
    """

    graph: Graph
    prefix: str = ""
    subgraph: Subgraph | None = None
    node: Node | None = None
    parent: "Scope | None" = None
    level: int = 0


@dataclass(frozen=True)
class Placed:
    """A node in one use of its graph."""

    scope: Scope
    node: Node

    @property
    def id(self) -> str:
        """Its id in the API format, `5:3` for node 3 in what node 5 stands for."""
        return self.scope.prefix + self.node.id


@dataclass(frozen=True)
class Expansion:
    """Every node of an export; `scopes` has, by a node's id, what it stands for."""

    nodes: list[Placed] = field(default_factory=list)
    scopes: dict[str, Scope] = field(default_factory=dict)


class Definitions:
    """What nodes of an export may stand for: subgraphs, and group nodes, which came before."""

    def __init__(self, export: Export, classes: Classes) -> None:
        self._export = export
        self._classes = classes
        self._groups: dict[str, Subgraph] = {}
        self._promoted: dict[int, dict[str, Any]] = {}

    def of(self, node: Node) -> Subgraph | None:
        """The subgraph that a node stands for, if it does."""
        found = self._export.subgraphs.get(node.type)
        name = group_name(node.type)
        if found is not None or name not in self._export.group_nodes:
            return found
        if name not in self._groups:
            data = self._export.group_nodes[name]
            self._groups[name] = group_subgraph(name, data, self._classes)
        return self._groups[name]

    def promoted(self, node: Node, subgraph: Subgraph) -> dict[str, Any]:
        """The values of the widgets that a subgraph's inputs have become on the node, by input.

        A node that has none saved has what the widget inside has.
        """
        # The export keeps the node, and with it its identity, for as long as this lives.
        if id(node) not in self._promoted:
            self._promoted[id(node)] = dict(self._promoted_values(node, subgraph))
        return self._promoted[id(node)]

    def _promoted_values(self, node: Node, subgraph: Subgraph) -> Iterator[tuple[str, Any]]:
        saved = node.widgets_values
        by_name: Mapping[str, Any] = saved if isinstance(saved, dict) else {}
        places = iter(saved if isinstance(saved, list) else ())
        for port in _in_order(node, subgraph):
            inner = self._inner_value(subgraph, port)
            if inner is _NO_WIDGET:
                continue
            yield port.name, by_name.get(port.name, next(places, inner))
            for _ in range(port.controls):
                next(places, None)

    def _inner_value(self, subgraph: Subgraph, port: Port) -> Any:
        """The value of the first widget that the input is linked to inside."""
        for link_id in port.links:
            link = subgraph.graph.links.get(link_id)
            target = subgraph.graph.nodes.get(link.target) if link else None
            if link is None or target is None:
                continue
            named = [slot.name for slot in target.inputs if slot.link == link_id]
            if not named and link.target_slot < len(target.inputs):
                named = [target.inputs[link.target_slot].name]
            for name in named:
                value = self._widget_value(target, name)
                if value is not _NO_WIDGET:
                    return value
        return _NO_WIDGET

    def _widget_value(self, node: Node, name: str) -> Any:
        inner = self.of(node)
        if inner is not None:
            return self.promoted(node, inner).get(name, _NO_WIDGET)
        node_class = self._classes.get(node.type)
        if node_class is None or name not in (*node_class.widget_types, *node_class.branched):
            return _NO_WIDGET
        return widget_values(node, node_class).get(name, MISSING)


_NO_WIDGET = object()


def expand(export: Export, definitions: Definitions) -> Expansion:
    """Every node of an export, those of subgraphs and group nodes in place of the nodes for them.

    Raises:
        InvalidWorkflowError: a subgraph has itself inside, or they are too many or too deep.
    """
    expansion = Expansion()
    waiting = [Scope(export.graph)]
    while waiting:
        scope = waiting.pop()
        if len(expansion.nodes) + len(scope.graph.nodes) > _MOST_NODES:
            raise InvalidWorkflowError(
                f"the export stands for more than {_MOST_NODES} nodes, with its subgraphs expanded"
            )
        for node in scope.graph.nodes.values():
            placed = Placed(scope, node)
            subgraph = definitions.of(node)
            if subgraph is None:
                expansion.nodes.append(placed)
            else:
                # Whatever its mode: the frontend asks the inner nodes alone for theirs.
                inner = _inner_scope(placed, subgraph)
                expansion.scopes[placed.id] = inner
                waiting.append(inner)
            if len(expansion.scopes) > _MOST_NODES:
                raise InvalidWorkflowError(f"the export has more than {_MOST_NODES} subgraphs")
    return expansion


def _inner_scope(placed: Placed, subgraph: Subgraph) -> Scope:
    level = placed.scope.level + 1
    if level > _MOST_LEVELS:
        raise InvalidWorkflowError(f"subgraphs are nested deeper than {_MOST_LEVELS} levels")
    outer: Scope | None = placed.scope
    while outer is not None:
        if outer.subgraph is subgraph:
            raise InvalidWorkflowError(
                f"node {label(placed.id)}: subgraph {label(subgraph.name)} has itself inside"
            )
        outer = outer.parent
    return Scope(subgraph.graph, f"{placed.id}:", subgraph, placed.node, placed.scope, level)


def _in_order(node: Node, subgraph: Subgraph) -> list[Port]:
    """A subgraph's inputs in the order in which the node saves their widgets."""
    ports = {port.name: port for port in subgraph.inputs}
    shown = [slot.name for slot in node.inputs if slot.name in ports]
    # What an image has embedded leaves out inputs that have a widget and no link.
    if subgraph.is_group or len(set(shown)) < len(ports):
        return list(subgraph.inputs)
    return [ports[name] for name in dict.fromkeys(shown)]
