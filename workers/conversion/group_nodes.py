"""Group nodes, which came before subgraphs: read as subgraphs, so that one rule expands both."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tasks.request import label
from workers.conversion.export import as_slot, read_node, type_name
from workers.conversion.graph import Graph, Link, Node, Port, Slot, Subgraph
from workers.conversion.node_classes import Classes, NodeClass

_PREFIXES = ("workflow>", "workflow/")
_INPUT, _OUTPUT = "-10", "-20"
# How many values follow that of a widget which changes after each run.
_CONTROLS = {"INT": 1, "COMBO": 2}


def group_name(class_type: str) -> str:
    """The name of the group node that a class stands for, empty if it is no group node's."""
    for prefix in _PREFIXES:
        if class_type.startswith(prefix):
            return class_type.removeprefix(prefix)
    return ""


def group_subgraph(name: str, data: Mapping[str, Any], classes: Classes) -> Subgraph:
    """A group node's definition, as a subgraph with its nodes numbered from 0.

    Inputs and outputs have the names and the order that the frontend gives them, as the nodes
    that stand for it are saved with those.

    Raises:
        InvalidWorkflowError: names what cannot be read, in one sentence.
    """
    return _Group(name, data, classes).subgraph()


@dataclass
class _Inner:
    """A node of a group, and which link each of its inputs has."""

    node: Node
    node_class: NodeClass | None
    links: dict[str, str] = field(default_factory=dict)

    def input_name(self, slot: int) -> str | None:
        """The name of an input by its number, as the file counts."""
        if slot < len(self.node.inputs):
            return self.node.inputs[slot].name
        sockets = self.node_class.sockets if self.node_class else ()
        return sockets[slot].name if slot < len(sockets) else None

    def converted(self) -> list[str]:
        """The names of the widgets that are inputs as well, in the frontend's order."""
        names = {
            index: slot.name
            for index, slot in enumerate(self.node.inputs)
            if slot.widget == slot.name and self.kind(slot.name) is not None
        }
        # The frontend sorts the numbers as texts.
        return [names[index] for index in sorted(names, key=str)]

    def kind(self, name: str) -> str | None:
        """The type of a widget, None if there is no such widget."""
        return self.node_class.widget_types.get(name) if self.node_class else None

    def linked(self) -> Node:
        """The node with its links inside the group."""
        slots = {slot.name: slot for slot in self.node.inputs}
        missing = [
            Slot(name, self.kind(name) or "*", widget=name if self.kind(name) else None)
            for name in self.links
            if name not in slots
        ]
        inputs = (replace(slot, link=self.links.get(slot.name)) for slot in slots.values())
        added = (replace(slot, link=self.links[slot.name]) for slot in missing)
        return replace(self.node, inputs=(*inputs, *added))


class _Group:
    """A group node's definition while it is read."""

    def __init__(self, name: str, data: Mapping[str, Any], classes: Classes) -> None:
        self._name = name
        where = f"group node {label(name)}"
        nodes = data.get("nodes")
        items = nodes if isinstance(nodes, list) else []
        self._inner = [_inner(item, index, where, classes) for index, item in enumerate(items)]
        self._config = data.get("config")
        self._external = set(_external(data.get("external")))
        self._links: dict[str, Link] = {}
        self._targets: dict[tuple[int, int], list[tuple[int, str]]] = {}
        self._seen: dict[str, int] = {}
        self._inputs: list[Port] = []
        self._outputs: list[Port] = []
        for link in _links(data.get("links"), len(items)):
            self._link_inside(link)

    def subgraph(self) -> Subgraph:
        """The group as a subgraph."""
        for index in range(len(self._inner)):
            self._add_inputs(index)
            self._add_outputs(index)
        # What became an input of its node by hand stands at the end of the group's.
        for index, inner in enumerate(self._inner):
            for name in inner.converted():
                if name not in inner.links:
                    self._add_input(index, name)
        nodes = {inner.node.id: inner.linked() for inner in self._inner}
        graph = Graph(nodes, self._links)
        ports = tuple(self._inputs), tuple(self._outputs)
        return Subgraph(self._name, self._name, graph, *ports, _INPUT, is_group=True)

    def _link_inside(self, link: tuple[int, int, int, int]) -> None:
        origin, origin_slot, target, target_slot = link
        inner = self._inner[target]
        name = inner.input_name(target_slot)
        if name is None:
            return
        if self._inner[origin].node.type == "PrimitiveNode":
            # Its value is the group's: the widget links to the targets themselves.
            inner.links.setdefault(name, "")
        else:
            inner.links[name] = self._add_link(str(origin), origin_slot, str(target), target_slot)
        self._targets.setdefault((origin, origin_slot), []).append((target, name))

    def _add_link(self, origin: str, origin_slot: int, target: str, target_slot: int) -> str:
        link_id = f"link {len(self._links)}"
        self._links[link_id] = Link(link_id, origin, origin_slot, target, target_slot)
        return link_id

    def _add_inputs(self, index: int) -> None:
        inner = self._inner[index]
        match inner.node.type:
            case "PrimitiveNode":
                self._add_primitive(index)
            case "Reroute":
                self._add_reroute(index)
            case _ if inner.node_class is not None:
                converted = inner.converted()
                names = inner.node_class.inputs
                widgets = [name for name in names if inner.kind(name) and name not in converted]
                sockets = [slot.name for slot in inner.node_class.sockets]
                for name in (*widgets, *(one for one in sockets if one not in inner.links)):
                    self._add_input(index, name)

    def _add_input(self, index: int, name: str) -> None:
        inner = self._inner[index]
        shown = self._input_name(index, name)
        if inner.kind(name) is None and self._setting(index, "input", name, "visible") is False:
            return
        kind, options = inner.node_class.inputs[name] if inner.node_class else ("*", {})
        is_controlled = name in ("seed", "noise_seed") or options.get("control_after_generate")
        controls = _CONTROLS.get(kind, 0) if is_controlled else 0
        self._add_port(shown, kind, [(index, name)], controls)

    def _add_primitive(self, index: int) -> None:
        targets = self._targets.get((index, 0), [])
        if not targets:
            return
        kind = next((kind for i, name in targets if (kind := self._inner[i].kind(name))), "*")
        shown = self._input_name(index, "value")
        self._add_port(shown, kind, targets, _CONTROLS.get(kind, 0))

    def _add_reroute(self, index: int) -> None:
        inner = self._inner[index]
        name = inner.node.inputs[0].name if inner.node.inputs else ""
        if name not in inner.links:
            kind = self._type_of_reroute(index)
            self._add_port(self._input_name(index, kind), kind, [(index, name)], 0)

    def _type_of_reroute(self, index: int) -> str:
        inputs = (
            slot.type
            for target, name in self._targets.get((index, 0), [])
            for slot in self._inner[target].node.inputs
            if slot.name == name
        )
        return next((one for one in (*inputs, *self._inner[index].node.outputs) if one != "*"), "*")

    def _add_port(
        self, name: str, kind: str, targets: list[tuple[int, str]], controls: int
    ) -> None:
        links = []
        for index, target in targets:
            link_id = self._add_link(_INPUT, len(self._inputs), str(index), 0)
            self._inner[index].links[target] = link_id
            links.append(link_id)
        self._inputs.append(Port(name, kind, tuple(links), controls))

    def _add_outputs(self, index: int) -> None:
        inner = self._inner[index]
        if inner.node.type == "PrimitiveNode":
            return
        known = inner.node_class.outputs if inner.node_class else inner.node.outputs
        for slot, kind in enumerate(known):
            is_inside = (index, slot) in self._targets and (index, slot) not in self._external
            visible = self._setting(index, "output", str(slot), "visible")
            if is_inside if visible is None else not visible:
                continue
            link_id = self._add_link(str(index), slot, _OUTPUT, len(self._outputs))
            self._outputs.append(Port(kind, type_name(kind), (link_id,)))

    def _input_name(self, index: int, name: str) -> str:
        """What the group calls an input: names that are taken have the node's title before."""
        node = self._inner[index].node
        chosen = self._setting(index, "input", name, "name")
        labels = [slot.label for slot in node.inputs if slot.name == name and slot.label]
        shown = chosen if isinstance(chosen, str) else next(iter(labels), name)
        key = shown
        if (node.type == "PrimitiveNode" and node.title) or shown in self._seen:
            prefix = f"{node.title or node.type} "
            key = shown = f"{prefix}{name}"
            if shown in self._seen:
                shown = f"{prefix}{self._seen[shown]} {name}"
        self._seen[key] = self._seen.get(key, 1) + 1
        return shown

    def _setting(self, index: int, side: str, name: str, key: str) -> Any:
        """What a person has set for an input or output of a node, None if nothing."""
        value = self._config
        for part in (str(index), side, name, key):
            value = value.get(part) if isinstance(value, Mapping) else None
        return value


def _inner(item: object, index: int, where: str, classes: Classes) -> _Inner:
    # Ids are those of a clipboard; the frontend counts.
    numbered = {**item, "id": index} if isinstance(item, Mapping) else item
    node = read_node(numbered, where)
    return _Inner(node, classes.get(node.type))


def _links(value: object, count: int) -> Iterator[tuple[int, int, int, int]]:
    for item in value if isinstance(value, list) else ():
        match [as_slot(part) for part in item[:4]] if isinstance(item, list) else None:
            case [int(origin), int(out), int(target), int(into)] if max(origin, target) < count:
                yield origin, out, target, into


def _external(value: object) -> Iterator[tuple[int, int]]:
    for item in value if isinstance(value, list) else ():
        match [as_slot(part) for part in item[:2]] if isinstance(item, list) else None:
            case [int(index), int(slot)]:
                yield index, slot
