"""Telling apart the two forms that a workflow has: ComfyUI's API format, and what its UI saves."""

from collections.abc import Mapping


def is_export(value: object) -> bool:
    """Whether the value is an export of the UI, which has a list of nodes."""
    return isinstance(value, Mapping) and isinstance(value.get("nodes"), list)


def is_api_format(value: object) -> bool:
    """Whether the value has a node of the API format, sound or not."""
    return isinstance(value, Mapping) and any(
        isinstance(node, Mapping) and "class_type" in node for node in value.values()
    )
