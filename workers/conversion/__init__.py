"""From an export of ComfyUI's UI to its API format, as the frontend itself does it."""
