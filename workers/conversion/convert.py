"""From an export of ComfyUI's UI to a workflow in API format, as the frontend itself does it."""

import random
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any

from tasks.workflow import Workflow
from workers.conversion.allowance import Allowance
from workers.conversion.export import read_export
from workers.conversion.graph import BYPASSED, MUTED, Node, first_value
from workers.conversion.links import Links, Origin, Primitive, Promoted
from workers.conversion.node_classes import MISSING, Classes, NodeClass
from workers.conversion.refusals import check_links_are_real, with_classes
from workers.conversion.subgraphs import Definitions, Placed, expand
from workers.conversion.texts import Choose, dynamic_prompt, with_replacements
from workers.conversion.widgets import widget_values

_ALIAS = "Node name for S&R"
# The one widget of a node that is the UI's own.
_OWN_WIDGETS = {"PrimitiveNode": "value", "Note": "text", "MarkdownNote": "text"}
# Their file names may name other nodes' widgets, and dates.
_SAVERS = frozenset(
    {"SaveImage", "SaveAnimatedWEBP", "SaveAnimatedPNG", "SaveWEBM", "SaveAudio", "SaveGLB"}
    | {"CLIPSave", "VAESave", "ModelSave", "LoraSave", "SaveLatent"}
)


def convert(
    export: object,
    object_info: Mapping[str, Any],
    *,
    choose: Choose = random.choice,
    now: datetime | None = None,
) -> Workflow:
    """The workflow that the frontend would send for an export, to a server with these nodes.

    `choose` picks an option of each `{day|night}` in a prompt; `now` is for dates in file names.

    Raises:
        InvalidWorkflowError: it is no export, it cannot be read, or it has a node of a class
            that the server doesn't know; names nodes and reasons in one sentence.
    """
    return _Conversion(export, object_info, choose, now or datetime.now().astimezone()).workflow()


class _Conversion:
    """One export on its way."""

    def __init__(
        self, export: object, object_info: Mapping[str, Any], choose: Choose, now: datetime
    ) -> None:
        self._classes = Classes(object_info)
        read = read_export(export)
        definitions = Definitions(read, self._classes)
        expansion = expand(read, definitions)
        self._nodes, self._overrides = expansion.nodes, expansion.overrides
        self._links = Links(expansion, definitions, self._classes)
        self._choose = choose
        self._now = now
        self._allowance = Allowance()
        self._named_values: dict[int, Mapping[str, Any]] = {}

    def workflow(self) -> Workflow:
        """The workflow, without links to what isn't sent."""
        nodes = [placed for placed in self._nodes if self._is_sent(placed)]
        check_links_are_real(nodes)
        known = with_classes(nodes, self._classes)
        sent = {placed.id: self._node(placed, node_class) for placed, node_class in known}
        for node in sent.values():
            inputs = node["inputs"].items()
            node["inputs"] = {
                name: value
                for name, value in inputs
                if not isinstance(value, list) or value[0] in sent
            }
        return sent

    def _is_sent(self, placed: Placed) -> bool:
        node = placed.node
        return node.mode not in (MUTED, BYPASSED) and not self._links.is_virtual(node)

    def _node(self, placed: Placed, node_class: NodeClass) -> dict[str, Any]:
        node = {
            "inputs": self._inputs(placed, node_class),
            "class_type": node_class.name,
            "_meta": {"title": placed.node.title or node_class.title},
        }
        self._allowance.take({placed.id: node})
        return node

    def _inputs(self, placed: Placed, node_class: NodeClass) -> dict[str, Any]:
        values = widget_values(placed.node, node_class)
        overrides = self._overrides.get(placed.id, {})
        values.update((name, value) for name, value in overrides.items() if name in values)
        linked: dict[str, Any] = {}
        for index, slot in enumerate(self._links.slots(placed.node)):
            match self._links.source(placed, index) if slot.link else None:
                case Origin(node_id, output):
                    linked[slot.name] = [node_id, output]
                case Promoted(value) if value is not MISSING:
                    linked[slot.name] = _wrapped(value)
                case Primitive(primitive) if slot.name in values:
                    values[slot.name] = self._primitive_value(primitive, values[slot.name])
        texts = self._sent_values(node_class, values)
        return {**texts, **linked}

    def _sent_values(self, node_class: NodeClass, values: Mapping[str, Any]) -> dict[str, Any]:
        dynamic = {widget.name for widget in node_class.widgets if widget.is_dynamic}
        sent = {}
        for name, value in values.items():
            match value:
                case str() if name in dynamic:
                    sent[name] = dynamic_prompt(value, self._chosen)
                case str() if name == "filename_prefix" and node_class.name in _SAVERS:
                    sent[name] = with_replacements(value, self._widget_value, self._now)
                case _ if value is not MISSING:
                    sent[name] = _wrapped(value)
        return sent

    def _chosen(self, options: Sequence[str]) -> str:
        # Each level of choices reads the whole of its text again.
        self._allowance.take(list(options))
        return self._choose(options)

    def _primitive_value(self, placed: Placed, own: Any) -> Any:
        node, overrides = placed.node, self._overrides.get(placed.id, {})
        has_value = isinstance(node.widgets_values, list) and node.widgets_values
        if not has_value and not overrides:
            return own
        value = overrides.get("value", first_value(node))
        if isinstance(value, str) and node.properties.get("Run widget replace on values"):
            return with_replacements(value, self._widget_value, self._now)
        return value

    def _widget_value(self, node_name: str, widget: str) -> object:
        """The value of a widget of the node with the name: an alias, or else a title."""
        value = self._found_value(node_name, widget)
        self._allowance.take(value)
        return value

    def _found_value(self, node_name: str, widget: str) -> object:
        node = self._aliases.get(node_name) or self._titles.get(node_name)
        if node is None:
            return None
        # The export keeps the node, and with it its identity, for as long as this lives.
        if id(node) not in self._named_values:
            self._named_values[id(node)] = self._values_of(node)
        values = self._named_values[id(node)]
        value = values.get(widget)
        return "" if widget in values and value in (None, MISSING) else value

    def _values_of(self, node: Node) -> Mapping[str, Any]:
        if node.type in _OWN_WIDGETS:
            return {_OWN_WIDGETS[node.type]: first_value(node)}
        node_class = self._classes.get(node.type)
        return widget_values(node, node_class) if node_class else {}

    @cached_property
    def _aliases(self) -> dict[str, Node]:
        named = ((self._alias(placed.node), placed.node) for placed in self._nodes)
        # The first of a name counts.
        return {name: node for name, node in reversed([*named]) if isinstance(name, str)}

    def _alias(self, node: Node) -> object:
        """The name that the frontend gives a node to be found by, or a person has changed it to."""
        is_named = node.type not in _SAVERS and self._classes.get(node.type) is not None
        return node.properties.get(_ALIAS, node.type if is_named else None)

    @cached_property
    def _titles(self) -> dict[str, Node]:
        return {self._title(placed.node): placed.node for placed in reversed(self._nodes)}

    def _title(self, node: Node) -> str:
        node_class = self._classes.get(node.type)
        return node.title or (node_class.title if node_class else node.type)


def _wrapped(value: Any) -> Any:
    # A bare list would be taken for a link.
    return {"__value__": value} if isinstance(value, list) else value
