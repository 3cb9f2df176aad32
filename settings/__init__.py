"""One validated, frozen value read from the environment; nothing else here reads it."""

from settings.model import Settings, SettingsError, load

__all__ = ["Settings", "SettingsError", "load"]
