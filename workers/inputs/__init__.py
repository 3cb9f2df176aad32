"""The files that a job brings along: had, checked, placed on its server and used there."""

from workers.inputs.inputs import Inputs
from workers.inputs.sources import Sources

__all__ = ["Inputs", "Sources"]
