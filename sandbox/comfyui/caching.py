"""What nodes have made, kept for the next prompt.

Observed on a running 0.3.64: a result is found again by what it was made from, not by its node id;
it lives until a prompt comes that has no such node; failed and interrupted prompts keep theirs.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from sandbox.comfyui.nodes import NodeClass, Result
from sandbox.comfyui.validation import is_link


@dataclass(frozen=True)
class CachedNode:
    """One node's result and the id of the node that made it, which history goes on naming."""

    node_id: str
    result: Result


def signatures(prompt: Mapping[str, Any], classes: Mapping[str, NodeClass]) -> dict[str, str]:
    """For each node a digest of all that its result depends on: itself and its ancestors."""
    found: dict[str, str] = {}

    def sign(node_id: str) -> str:
        if node_id not in prompt:
            return ""
        if node_id not in found:
            # A cycle, which only nodes that no output needs can have, ends here.
            found[node_id] = ""
            node = prompt[node_id]
            inputs = {
                name: [sign(value[0]), value[1]] if is_link(value) else {"value": value}
                for name, value in node.get("inputs", {}).items()
            }
            node_class = classes[node["class_type"]]
            described = [node["class_type"], inputs, _fingerprint(node_class, node)]
            found[node_id] = sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
        return found[node_id]

    for node_id in prompt:
        sign(node_id)
    return found


def _fingerprint(node_class: NodeClass, node: Mapping[str, Any]) -> str:
    inputs = node.get("inputs", {})
    complete = all(name in inputs and not is_link(inputs[name]) for name in node_class.inputs())
    return node_class.fingerprint(inputs) if complete else ""
