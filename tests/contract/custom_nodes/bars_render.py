# ruff: noqa: INP001 - ComfyUI loads this file by itself
"""`BarsRender`: a ComfyUI node that takes the time and the steps it is told, or fails as told.

Copy this file into a server's `custom_nodes/` folder and the whole contract suite runs against that
server. It is a plain V1 node and needs nothing that ComfyUI does not bring along.
"""

import time
from typing import Any, ClassVar

import comfy.model_management  # type: ignore[import-not-found]
import comfy.utils  # type: ignore[import-not-found]
import torch  # type: ignore[import-not-found]


class BarsRender:
    """Renders vertical colour bars, spread over `steps` steps of `seconds / steps` each."""

    CATEGORY = "image"
    FUNCTION = "run"
    RETURN_TYPES = ("IMAGE",)

    MODES: ClassVar[list[str]] = ["ok", "error", "oom"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 - the name ComfyUI asks for
        """The inputs as ComfyUI describes them to its clients."""
        return {
            "required": {
                "seed": ("INT", {"default": 0, "min": 0, "max": 2**64 - 1}),
                "seconds": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 3600.0}),
                "steps": ("INT", {"default": 10, "min": 1, "max": 10000}),
                "width": ("INT", {"default": 256, "min": 8, "max": 8192}),
                "height": ("INT", {"default": 256, "min": 8, "max": 8192}),
                "batch_size": ("INT", {"default": 1, "min": 1, "max": 64}),
                "mode": (cls.MODES,),
            }
        }

    def run(
        self,
        *,
        seed: int,
        seconds: float,
        steps: int,
        width: int,
        height: int,
        batch_size: int,
        mode: str,
    ) -> tuple[Any]:
        """Render, or fail after the step in the middle as `mode` says.

        Raises:
            ValueError: `mode` is `error`.
            torch.OutOfMemoryError: `mode` is `oom`.
        """
        progress = comfy.utils.ProgressBar(steps)
        for step in range(steps):
            time.sleep(seconds / steps)
            progress.update(1)
            if step == steps // 2 and mode == "error":
                raise ValueError("bars: deliberate node failure")
            if step == steps // 2 and mode == "oom":
                raise comfy.model_management.OOM_EXCEPTION("bars: deliberate out of memory")
        generator = torch.Generator().manual_seed(seed % 2**63)
        bars = torch.rand((batch_size, 1, 8, 3), generator=generator)
        columns = torch.arange(width) * 8 // width
        return (bars[:, :, columns, :].expand(-1, height, -1, -1).contiguous(),)


NODE_CLASS_MAPPINGS = {"BarsRender": BarsRender}
NODE_DISPLAY_NAME_MAPPINGS = {"BarsRender": "Bars (test render)"}
