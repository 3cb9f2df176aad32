"""`comfyfleet comfy`: one ComfyUI server, without a broker."""

from cli.comfy.app import comfy

__all__ = ["comfy"]
