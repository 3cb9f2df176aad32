"""What frontends since 1.28 show on a subgraph's node of the widgets inside it: `proxyWidgets`."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from workers.conversion.export import Node, as_id

SINCE = (1, 28)
# What stands for the node itself.
OWN = "-1"

_MOST = 1000
_PREFIXED = re.compile(r"\s*(\d{1,18})\s*:\s*(.+)", re.DOTALL)


@dataclass(frozen=True)
class Proxy:
    """A widget of a node inside, or of the node itself, and the value that is saved for it."""

    node: str
    widget: str
    value: Any

    def further_inside(self) -> "Proxy | None":
        """The same for what is in the node, if the widget's name says so: `5: seed`."""
        found = _PREFIXED.fullmatch(self.widget)
        return Proxy(found[1], found[2], self.value) if found else None


def read_proxies(node: Node) -> Iterator[Proxy]:
    """The widgets that a node shows; those without a saved value have None."""
    listed = node.properties.get("proxyWidgets")
    if isinstance(listed, str):
        listed = _parsed(listed)
    if not isinstance(listed, list):
        return
    saved = node.widgets_values if isinstance(node.widgets_values, list) else []
    for index, entry in enumerate(listed[:_MOST]):
        match entry:
            case [node_id, str(name), *_] if (inner := as_id(node_id)) is not None:
                yield Proxy(inner, name, saved[index] if index < len(saved) else None)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
