"""Taking the metadata out of files as they pass: nothing is encoded anew, little is held."""

from workers.outputs.metadata.stripping import Stripping

__all__ = ["Stripping"]
