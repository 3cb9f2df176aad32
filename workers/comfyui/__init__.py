"""The ComfyUI adapter: its HTTP API, its websocket, and what its answers mean."""

from workers.comfyui.client import ComfyUI
from workers.comfyui.model import Execution
from workers.comfyui.notifications import Notifications

__all__ = ["ComfyUI", "Execution", "Notifications"]
