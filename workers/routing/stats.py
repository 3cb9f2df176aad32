"""What a server says of itself: whatever it is, others can be told of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from workers.ledger.servers import Device

# No machine has as many.
_MOST_DEVICES = 64
_MOST_BYTES = 2**60
# No name or version has as many characters.
_MOST_CHARACTERS = 100


@dataclass(frozen=True)
class Stats:
    """A server, as far as it says something that makes sense.

    Attributes:
        version: of ComfyUI; empty if it does not say.
        devices: its GPUs.
        ram_total_bytes: of its host.
        ram_free_bytes: of these.
    """

    version: str
    devices: tuple[Device, ...]
    ram_total_bytes: int | None
    ram_free_bytes: int | None


def read_stats(told: Mapping[str, Any]) -> Stats:
    """What `/system_stats` says."""
    system, devices = told.get("system"), told.get("devices")
    system = system if isinstance(system, Mapping) else {}
    devices = devices if isinstance(devices, list) else []
    return Stats(
        version=_text(system.get("comfyui_version")),
        devices=tuple(_device(one) for one in devices[:_MOST_DEVICES] if isinstance(one, Mapping)),
        ram_total_bytes=_bytes(system.get("ram_total")),
        ram_free_bytes=_bytes(system.get("ram_free")),
    )


def _device(told: Mapping[str, Any]) -> Device:
    return Device(
        name=_text(told.get("name")),
        kind=_text(told.get("type")),
        vram_total_bytes=_bytes(told.get("vram_total")),
        vram_free_bytes=_bytes(told.get("vram_free")),
    )


def _text(told: Any) -> str:
    # JSON can hold halves of characters, which nothing can be written in.
    text = told[:_MOST_CHARACTERS] if isinstance(told, str) else ""
    return text.encode(errors="replace").decode()


def _bytes(told: Any) -> int | None:
    return told if isinstance(told, int) and 0 <= told <= _MOST_BYTES else None
