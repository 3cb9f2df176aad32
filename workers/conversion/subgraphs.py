"""Taking subgraphs apart: every node that an export stands for, and promoted widgets' values."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tasks.errors import InvalidWorkflowError
from tasks.request import label
from workers.conversion.export import (
    BYPASSED,
    MUTED,
    Export,
    Graph,
    Link,
    Node,
    Port,
    Subgraph,
)
from workers.conversion.group_nodes import group_name, group_subgraph
from workers.conversion.node_classes import MISSING, Classes
from workers.conversion.proxies import OWN, Proxy, read_proxies
from workers.conversion.proxies import SINCE as PROXIES_SINCE
from workers.conversion.widgets import widget_values

_MOST_NODES = 20_000
_MOST_LEVELS = 50
# Before this version the frontend asked the nodes inside alone whether they are muted or bypassed,
# and set their modes with that of the node around them. A link to what is muted took the place of
# a widget's value, and was dropped; since then the value stays.
_MUTED_AS_A_WHOLE_SINCE = (1, 39)


@dataclass(frozen=True)
class Scope:
    """One use of a graph: the export's own, or a subgraph for one of the nodes that stand for it.

    `prefix` precedes its nodes' ids in the API format: `5:` for what node 5 stands for. `is_sent`
    is false inside of what is muted or bypassed as a whole.
    """

    graph: Graph
    prefix: str = ""
    subgraph: Subgraph | None = None
    node: Node | None = None
    parent: "Scope | None" = None
    level: int = 0
    is_sent: bool = True


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
    """Every node of an export.

    By a node's id, `scopes` has what it stands for, and `overrides` the values that a subgraph's
    node around it has for its widgets. `muted_as_a_whole` tells whether what is inside of a muted
    node is muted, too.
    """

    nodes: list[Placed] = field(default_factory=list)
    scopes: dict[str, Scope] = field(default_factory=dict)
    overrides: dict[str, dict[str, Any]] = field(default_factory=dict)
    muted_as_a_whole: bool = False


class Definitions:
    """What nodes of an export may stand for: subgraphs, and group nodes, which came before."""

    def __init__(self, export: Export, classes: Classes) -> None:
        self._export = export
        self._classes = classes
        self._groups: dict[str, Subgraph] = {}
        # What these are of is kept by the export and the groups: its identity stays its own.
        self._promoted: dict[int, dict[str, Any]] = {}
        self._defaults: dict[int, dict[str, Any]] = {}
        self._ports: dict[int, dict[tuple[str, str], str]] = {}
        self._names: dict[int, dict[str, str]] = {}
        self._values: dict[int, dict[str, Any]] = {}

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
        if id(node) not in self._promoted:
            self._promoted[id(node)] = dict(self._promoted_values(node, subgraph))
        return self._promoted[id(node)]

    def overrides(self, node: Node, subgraph: Subgraph) -> Iterator[tuple[str, str, Any]]:
        """What the node has for widgets inside that no input is linked to.

        Yields:
            the id of the node inside, as `7:5` for node 5 in what that stands for, the widget's
            name and its value.
        """
        ports = self._ports_of(subgraph)
        for proxy in self._proxies(node):
            is_inside = proxy.node != OWN and (proxy.node, proxy.widget) not in ports
            if is_inside and proxy.value is not None:
                yield from self._override(proxy, subgraph)

    def _override(self, proxy: Proxy, subgraph: Subgraph) -> Iterator[tuple[str, str, Any]]:
        path: list[str] = []
        at: Proxy | None = proxy
        inside: Subgraph | None = subgraph
        while at is not None and inside is not None and at.node in inside.graph.nodes:
            path.append(at.node)
            inside = self.of(inside.graph.nodes[at.node])
            if inside is None or at.widget in self._defaults_of(inside):
                yield ":".join(path), at.widget, at.value
                return
            at = at.further_inside()

    def _proxies(self, node: Node) -> Iterator[Proxy]:
        return read_proxies(node) if self._export.frontend >= PROXIES_SINCE else iter(())

    def _promoted_values(self, node: Node, subgraph: Subgraph) -> Iterator[tuple[str, Any]]:
        defaults, ports = self._defaults_of(subgraph), self._ports_of(subgraph)
        proxied = {
            proxy.widget if proxy.node == OWN else ports[proxy.node, proxy.widget]: proxy.value
            for proxy in self._proxies(node)
            if proxy.node == OWN or (proxy.node, proxy.widget) in ports
        }
        if proxied:
            values = {name: value for name, value in proxied.items() if value is not None}
            yield from ((name, values.get(name, own)) for name, own in defaults.items())
            return
        saved = node.widgets_values
        by_name: Mapping[str, Any] = saved if isinstance(saved, dict) else {}
        places = iter(saved if isinstance(saved, list) else ())
        for port in subgraph.inputs:
            if port.name not in defaults:
                continue
            yield port.name, by_name.get(port.name, next(places, defaults[port.name]))
            for _ in range(port.controls):
                next(places, None)

    def _ports_of(self, subgraph: Subgraph) -> dict[tuple[str, str], str]:
        """The inputs that widgets inside are linked to, by the widgets' nodes and names."""
        if id(subgraph) not in self._ports:
            self._ports[id(subgraph)] = {
                (target.id, name): port.name
                for port in subgraph.inputs
                for target, name in self._linked(subgraph, port)
            }
        return self._ports[id(subgraph)]

    def _linked(self, subgraph: Subgraph, port: Port) -> Iterator[tuple[Node, str]]:
        """The nodes inside that an input is linked to, with the names of theirs."""
        for link_id in port.links:
            link = subgraph.graph.links.get(link_id)
            target = subgraph.graph.nodes.get(link.target) if link else None
            name = self._input_name(target, link) if link and target else None
            if target and name:
                yield target, name

    def _defaults_of(self, subgraph: Subgraph) -> dict[str, Any]:
        """The value inside of each input that is linked to a widget there."""
        if id(subgraph) not in self._defaults:
            values = {port.name: self._inner_value(subgraph, port) for port in subgraph.inputs}
            self._defaults[id(subgraph)] = {
                name: value for name, value in values.items() if value is not _NO_WIDGET
            }
        return self._defaults[id(subgraph)]

    def _inner_value(self, subgraph: Subgraph, port: Port) -> Any:
        """The value of the first widget that the input is linked to inside."""
        for target, name in self._linked(subgraph, port):
            value = self._widget_value(target, name)
            if value is not _NO_WIDGET:
                return value
        return _NO_WIDGET

    def _input_name(self, target: Node, link: Link) -> str | None:
        if id(target) not in self._names:
            named = {slot.link: slot.name for slot in reversed(target.inputs)}
            self._names[id(target)] = {key: name for key, name in named.items() if key}
        name = self._names[id(target)].get(link.id)
        if name is None and link.target_slot < len(target.inputs):
            return target.inputs[link.target_slot].name
        return name

    def _widget_value(self, node: Node, name: str) -> Any:
        inner = self.of(node)
        if inner is not None:
            return self.promoted(node, inner).get(name, _NO_WIDGET)
        if id(node) not in self._values:
            self._values[id(node)] = self._widget_values(node)
        return self._values[id(node)].get(name, _NO_WIDGET)

    def _widget_values(self, node: Node) -> dict[str, Any]:
        """The values of a node's widgets that may have a link, by the names of their inputs."""
        node_class = self._classes.get(node.type)
        if node_class is None:
            return {}
        values = widget_values(node, node_class)
        linkable = (*node_class.widget_types, *(node_class.branched & values.keys()))
        return {name: values.get(name, MISSING) for name in linkable}


_NO_WIDGET = object()


def expand(export: Export, definitions: Definitions) -> Expansion:
    """Every node of an export, those of subgraphs and group nodes in place of the nodes for them.

    Raises:
        InvalidWorkflowError: a subgraph has itself inside, or they are too many or too deep.
    """
    expansion = Expansion(muted_as_a_whole=export.frontend >= _MUTED_AS_A_WHOLE_SINCE)
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
            if subgraph is not None:
                inner = _inner_scope(placed, subgraph, as_a_whole=expansion.muted_as_a_whole)
                expansion.scopes[placed.id] = inner
                waiting.append(inner)
            elif scope.is_sent:
                expansion.nodes.append(placed)
            if len(expansion.scopes) > _MOST_NODES:
                raise InvalidWorkflowError(f"the export has more than {_MOST_NODES} subgraphs")
    # Now that none is known to have itself inside.
    for inner in expansion.scopes.values():
        _add_overrides(expansion, inner, definitions)
    return expansion


def _add_overrides(expansion: Expansion, scope: Scope, definitions: Definitions) -> None:
    if scope.node is None or scope.subgraph is None:
        return
    for inner_id, name, value in definitions.overrides(scope.node, scope.subgraph):
        # Those further out come first, and count.
        expansion.overrides.setdefault(scope.prefix + inner_id, {}).setdefault(name, value)


def _inner_scope(placed: Placed, subgraph: Subgraph, *, as_a_whole: bool) -> Scope:
    level = placed.scope.level + 1
    is_off = as_a_whole and placed.node.mode in (MUTED, BYPASSED)
    if level > _MOST_LEVELS:
        raise InvalidWorkflowError(f"subgraphs are nested deeper than {_MOST_LEVELS} levels")
    outer: Scope | None = placed.scope
    while outer is not None:
        if outer.subgraph is subgraph:
            raise InvalidWorkflowError(
                f"node {label(placed.id)}: subgraph {label(subgraph.name)} has itself inside"
            )
        outer = outer.parent
    return Scope(
        subgraph.graph,
        f"{placed.id}:",
        subgraph,
        placed.node,
        placed.scope,
        level,
        is_sent=placed.scope.is_sent and not is_off,
    )
