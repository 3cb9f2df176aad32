"""What is raised for settings that are wrong."""


class SettingsError(Exception):
    """One or more settings are wrong; the message has one line a variable."""
