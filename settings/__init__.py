"""One validated, frozen value read from the environment; nothing else here reads it."""

from settings.errors import SettingsError
from settings.model import Settings, load

__all__ = ["Settings", "SettingsError", "load"]
