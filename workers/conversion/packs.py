"""Widgets that a pack's extension of the UI makes itself: `/object_info` does not tell them."""

from collections.abc import Iterator
from typing import Any

from workers.conversion.graph import Node


def pack_values(node: Node) -> dict[str, Any]:
    """The values of such widgets, of the packs that are known here."""
    if node.type == "Power Lora Loader (rgthree)":
        return {f"lora_{number}": lora for number, lora in enumerate(_loras(node), 1)}
    return {}


def _loras(node: Node) -> Iterator[dict[str, Any]]:
    """Each LoRA that the node shows: a clip strength counts where the node shows one."""
    is_separate = node.properties.get("Show Strengths") == "Separate Model & Clip"
    for value in node.widgets_values if isinstance(node.widgets_values, list) else ():
        if isinstance(value, dict) and "lora" in value:
            lora = {name: part for name, part in value.items() if name != "strengthTwo"}
            strength = value.get("strengthTwo")
            yield (
                {**lora, "strengthTwo": 1 if strength is None else strength}
                if is_separate
                else lora
            )
