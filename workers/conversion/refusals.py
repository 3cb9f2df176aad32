"""Nodes that cannot be sent, and why: in one sentence for all of a workflow's."""

import re
from collections.abc import Sequence

from tasks.errors import InvalidWorkflowError
from tasks.request import did_you_mean, label
from workers.conversion.export import Node
from workers.conversion.group_nodes import group_name
from workers.conversion.node_classes import Classes, NodeClass
from workers.conversion.subgraphs import Placed

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_MOST_NAMED = 3
# Their extension of the UI makes the links when a workflow is queued; the file has none of them.
_BROADCASTING = frozenset(
    {"Anything Everywhere", "Anything Everywhere?", "Anything Everywhere3"}
    | {"Anything Everywhere Triplet", "Prompts Everywhere", "Seed Everywhere"}
)


def with_classes(sent: Sequence[Placed], classes: Classes) -> list[tuple[Placed, NodeClass]]:
    """Each node with its class.

    Raises:
        InvalidWorkflowError: the server doesn't know some of the classes; names the first of
            them, with their packs, and counts the others.
    """
    known: list[tuple[Placed, NodeClass]] = []
    unknown: dict[str, Placed] = {}
    for placed in sent:
        node_class = classes.get(placed.node.type)
        if node_class is not None:
            known.append((placed, node_class))
        else:
            unknown.setdefault(placed.node.type, placed)
    if not unknown:
        return known
    named = [_unknown(placed, classes) for placed in [*unknown.values()][:_MOST_NAMED]]
    more = len(unknown) - len(named)
    others = f"; and {more} more that it does not know" if more else ""
    raise InvalidWorkflowError("; ".join(named) + others)


def check_links_are_real(sent: Sequence[Placed]) -> None:
    """Refuse nodes that stand for links which only their extension of the UI can make.

    Raises:
        InvalidWorkflowError: names the first.
    """
    for placed in sent:
        if placed.node.type in _BROADCASTING and any(slot.link for slot in placed.node.inputs):
            raise InvalidWorkflowError(
                f"{_name(placed)} ({label(placed.node.type)}): gives its input to nodes that it "
                "is not linked to, which the file does not name; in the UI convert its links to "
                "real ones, or export the workflow in API format"
            )


def _unknown(placed: Placed, classes: Classes) -> str:
    node, where = placed.node, _name(placed)
    if _UUID.fullmatch(node.type):
        return f"{where}: its subgraph {label(node.type)} is not in the file"
    if group_name(node.type):
        return f"{where}: its group node {label(group_name(node.type))} is not in the file"
    hint = did_you_mean(node.type, classes.names())
    return f"{where}: the server does not know its class {label(node.type)}{_pack(node)}{hint}"


def _name(placed: Placed) -> str:
    titled = f" {label(placed.node.title)!r}" if placed.node.title else ""
    return f"node {label(placed.id)}{titled}"


def _pack(node: Node) -> str:
    """A clause that names the pack that a node came from, if the file does."""
    names = (node.properties.get(key) for key in ("cnr_id", "aux_id"))
    name = next((name for name in names if isinstance(name, str) and name), None)
    if name is None:
        return ""
    version = node.properties.get("ver")
    with_version = f" {label(version)}" if isinstance(version, str) and version else ""
    return f" from the pack {label(name)}{with_version}"
