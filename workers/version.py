"""Which version of comfyfleet this is."""

from importlib.metadata import PackageNotFoundError, version


def own_version() -> str:
    """The version that is installed; empty if it runs without being installed."""
    try:
        return version("comfyfleet")
    except PackageNotFoundError:
        return ""
