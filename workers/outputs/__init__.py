"""What becomes of an output file on its way into the store: its metadata, its thumbnail."""

from workers.outputs.passage import Passage
from workers.outputs.thumbnails import NoThumbnailError

__all__ = ["NoThumbnailError", "Passage"]
