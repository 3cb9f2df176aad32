"""Following a link to the node that is executed, through everything that only the UI knows."""

from dataclasses import dataclass
from typing import Any

from tasks.errors import InvalidWorkflowError
from tasks.request import label
from workers.conversion.export import BYPASSED, MUTED, Link, Node, Slot, first_value
from workers.conversion.node_classes import Classes
from workers.conversion.subgraphs import Definitions, Expansion, Placed, Scope
from workers.conversion.widgets import slots

# Files of people take some hops a link.
_MOST_HOPS = 200_000

# Nodes that exist in the UI alone.
_VIRTUAL = frozenset({"Note", "MarkdownNote", "Reroute", "PrimitiveNode"})
# What is linked by a name: a getter has what the setter of that name has as its input.
_SETTERS = frozenset({"SetNode", "easy setNode"})
_GETTERS = frozenset({"GetNode", "easy getNode"})
# Those of widespread packs are the UI's, too, as far as the server has no such class.
_VIRTUAL_OF_PACKS = frozenset(
    {*_SETTERS, *_GETTERS, "Reroute (rgthree)", "Label (rgthree)", "Bookmark (rgthree)"}
    | {"Fast Muter (rgthree)", "Fast Bypasser (rgthree)", "Node Collector (rgthree)"}
    | {"Fast Groups Muter (rgthree)", "Fast Groups Bypasser (rgthree)"}
    | {"Mute / Bypass Relay (rgthree)", "Mute / Bypass Repeater (rgthree)"}
    | {"Fast Actions Button (rgthree)", "Random Unmuter (rgthree)"}
)


@dataclass(frozen=True)
class Origin:
    """An output of a node that is executed."""

    node_id: str
    slot: int


@dataclass(frozen=True)
class Promoted:
    """The value of a widget on a subgraph's node, sent as it is."""

    value: Any


@dataclass(frozen=True)
class Primitive:
    """The value of a PrimitiveNode, which takes the place of the value of the input's widget."""

    placed: Placed


@dataclass(frozen=True)
class _Input:
    """The next hop leads into this input; links of the type are wanted, if one is."""

    scope: Scope
    node: Node
    index: int
    type: str | None = None


@dataclass(frozen=True)
class _Output:
    """The next hop leads out of this output, for an input of the type."""

    scope: Scope
    node: Node
    slot: int
    type: str


@dataclass(frozen=True)
class _Entry:
    """The next hop leads out of a subgraph, by the input that the link begins at."""

    scope: Scope
    link: Link


_Hop = _Input | _Output | _Entry
Source = Origin | Promoted | Primitive | None


class Links:
    """The links of one expanded export."""

    def __init__(self, expansion: Expansion, definitions: Definitions, classes: Classes) -> None:
        self._expansion = expansion
        self._definitions = definitions
        self._classes = classes
        # Where many inputs are looked at, that counts for several.
        self._hops = 0
        self._slots: dict[int, tuple[Slot, ...]] = {}
        self._setters: dict[str, dict[str, Node]] = {}

    def slots(self, node: Node) -> tuple[Slot, ...]:
        """A node's inputs, as `widgets.slots` has them."""
        # The export keeps the node, and with it its identity, for as long as this lives.
        if id(node) not in self._slots:
            self._slots[id(node)] = slots(node, self._classes.get(node.type))
        return self._slots[id(node)]

    def is_virtual(self, node: Node) -> bool:
        """Whether a node is the UI's own, and never sent."""
        of_pack = node.type in _VIRTUAL_OF_PACKS and self._classes.get(node.type) is None
        return node.type in _VIRTUAL or of_pack

    def source(self, placed: Placed, index: int) -> Source:
        """Where the input's value comes from, None if from nowhere.

        Raises:
            InvalidWorkflowError: the links lead in a circle in which no node is executed.
        """
        hop: _Hop | Source = _Input(placed.scope, placed.node, index)
        seen: set[tuple[object, ...]] = set()
        is_direct = True
        while isinstance(hop, _Input | _Output | _Entry):
            self._count(hop, seen, placed)
            match hop:
                case _Input():
                    hop = self._before_input(hop)
                case _Entry():
                    hop = self._outside(hop)
                case _Output():
                    hop = self._before_output(hop)
                    is_direct = is_direct and not isinstance(hop, _Input | _Output | _Entry)
        # Primitive values are set on the widgets that they are linked to, nowhere else.
        return None if isinstance(hop, Primitive) and not is_direct else hop

    def _count(self, hop: _Hop, seen: set[tuple[object, ...]], placed: Placed) -> None:
        self._hops += 1
        if self._hops > _MOST_HOPS:
            raise InvalidWorkflowError(f"the export's links take more than {_MOST_HOPS} hops")
        key = _key(hop)
        if key in seen:
            raise InvalidWorkflowError(
                f"node {label(placed.id)} ({label(placed.node.type)}): "
                "its links lead in a circle in which no node is executed"
            )
        seen.add(key)

    def _before_input(self, at: _Input) -> _Hop | None:
        inputs = self.slots(at.node)
        if at.index >= len(inputs):
            return None
        slot = inputs[at.index]
        link = at.scope.graph.links.get(slot.link) if slot.link else None
        return self._along(at.scope, link, at.type or slot.type)

    def _along(self, scope: Scope, link: Link | None, wanted: str) -> _Hop | None:
        if link is None:
            return None
        if scope.subgraph is not None and link.origin == scope.subgraph.input_node:
            return _Entry(scope, link)
        origin = scope.graph.nodes.get(link.origin)
        if origin is None or self._gives_nothing(origin):
            return None
        return _Output(scope, origin, link.origin_slot, wanted)

    def _gives_nothing(self, node: Node) -> bool:
        # A primitive has set its value all the same.
        is_off = node.mode == MUTED and node.type != "PrimitiveNode"
        return is_off and self._expansion.muted_as_a_whole

    def _outside(self, at: _Entry) -> _Hop | Promoted | None:
        scope = at.scope
        if scope.subgraph is None or scope.node is None or scope.parent is None:
            return None
        if at.link.origin_slot >= len(scope.subgraph.inputs):
            return None
        name = scope.subgraph.inputs[at.link.origin_slot].name
        self._hops += len(scope.node.inputs) // 10
        for index, slot in enumerate(self.slots(scope.node)):
            if slot.name == name and slot.link in scope.parent.graph.links:
                return _Input(scope.parent, scope.node, index)
        promoted = self._definitions.promoted(scope.node, scope.subgraph)
        if name not in promoted:
            return None
        overrides = self._expansion.overrides.get(scope.parent.prefix + scope.node.id, {})
        return Promoted(overrides.get(name, promoted[name]))

    def _before_output(self, at: _Output) -> _Hop | Source:
        node = at.node
        if node.type == "PrimitiveNode":
            # Whatever its mode, it has set its value by now.
            return Primitive(Placed(at.scope, node))
        if node.mode == BYPASSED:
            index = self._bypass(at)
            return None if index is None else _Input(at.scope, node, index)
        if self._definitions.of(node) is not None:
            return self._inside(at)
        if not self.is_virtual(node):
            return Origin(at.scope.prefix + node.id, at.slot)
        if node.type in _GETTERS:
            return self._before_setter(at)
        return _Input(at.scope, node, at.slot, at.type)

    def _inside(self, at: _Output) -> _Hop | None:
        scope = self._expansion.scopes.get(at.scope.prefix + at.node.id)
        if scope is None or scope.subgraph is None or at.slot >= len(scope.subgraph.outputs):
            return None
        inner = scope.subgraph.outputs[at.slot].links
        return self._along(scope, scope.graph.links.get(inner[0]) if inner else None, at.type)

    def _bypass(self, at: _Output) -> int | None:
        """The input that stands in for an output of a bypassed node: the first that fits."""
        inputs = self.slots(at.node)
        self._hops += len(inputs) // 10
        outputs = self._outputs(at.node)
        if at.slot >= len(outputs) or not inputs:
            return None
        if at.type == "*":
            return at.slot if at.slot < len(inputs) else 0
        offered = outputs[at.slot]
        fitting = [
            index
            for index, slot in enumerate(inputs)
            if _fit(slot.type, offered) and _fit(slot.type, at.type)
        ]
        if at.slot in fitting:
            return at.slot
        exact = [index for index, slot in enumerate(inputs) if slot.type == at.type]
        return next(iter((*exact, *fitting)), None)

    def _outputs(self, node: Node) -> tuple[str, ...]:
        subgraph = self._definitions.of(node)
        if subgraph is not None:
            return tuple(port.type for port in subgraph.outputs)
        node_class = self._classes.get(node.type)
        if node_class is None:
            return node.outputs
        return (*node_class.outputs, *node.outputs[len(node_class.outputs) :])

    def _before_setter(self, at: _Output) -> _Input | None:
        """The input of the setter that a getter names: in its own graph, or one around that."""
        name = first_value(at.node)
        scope: Scope | None = at.scope if isinstance(name, str) else None
        while scope is not None:
            setter = self._setters_of(scope).get(name)
            if setter is not None:
                return _Input(scope, setter, 0, at.type)
            scope = scope.parent
        return None

    def _setters_of(self, scope: Scope) -> dict[str, Node]:
        if scope.prefix not in self._setters:
            nodes = reversed([*scope.graph.nodes.values()])
            named = ((first_value(node), node) for node in nodes if node.type in _SETTERS)
            # The first of a name counts.
            self._setters[scope.prefix] = {
                name: node for name, node in named if isinstance(name, str)
            }
        return self._setters[scope.prefix]


def _key(hop: _Hop) -> tuple[object, ...]:
    match hop:
        case _Input():
            return "input", hop.scope.prefix, hop.node.id, hop.index
        case _Output():
            return "output", hop.scope.prefix, hop.node.id, hop.slot
        case _Entry():
            return "entry", hop.scope.prefix, hop.link.id


def _fit(one: str, other: str) -> bool:
    """Whether the UI lets the two types be linked: either may be a list, or any."""
    if "*" in (one, other) or one == other:
        return True
    ones, others = one.lower().split(","), other.lower().split(",")
    return not set(ones).isdisjoint(others) or "*" in (*ones, *others)
