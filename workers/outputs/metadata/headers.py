"""Files that begin with JSON: safetensors, which latents are, and binary glTF.

What comes behind is found by the JSON's size, which therefore stays.
"""

import json
from collections.abc import Callable
from typing import Any

from workers.outputs.metadata.model import Passing
from workers.outputs.source import Source

# Of JSON, in bytes: beyond it a file passes as it is.
_MOST_BYTES = 8 * 1024 * 1024


def strip_safetensors(source: Source) -> Passing:
    """Blank all metadata but the format, which says whose tensors they are."""
    start = 8
    size = int.from_bytes(source.peek(start), "little")
    return _strip(source, start, size, _without_metadata)


def strip_glb(source: Source) -> Passing:
    """Blank what applications have added to the scene as a whole and to its description."""
    start = 20
    head = source.peek(start)
    size = int.from_bytes(head[12:16], "little") if head[16:] == b"JSON" else -1
    return _strip(source, start, size, _without_extras)


def _strip(source: Source, start: int, size: int, change: Callable[[Any], bool]) -> Passing:
    if not 0 <= size <= _MOST_BYTES:
        return False
    head = source.peek(start + size)
    content = _changed(head[start:], change) if len(head) == start + size else None
    if content is None:
        return False
    source.skip(len(head))
    yield head[:start] + content
    yield from source.rest()
    return True


def _changed(content: bytes, change: Callable[[Any], bool]) -> bytes | None:
    """JSON without what `change` takes out, filled up with spaces; None if that cannot be."""
    try:
        document = json.loads(content)
        if not change(document):
            return content
        changed = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    except (ValueError, RecursionError, AttributeError, TypeError):
        return None
    return changed.ljust(len(content)) if len(changed) <= len(content) else None


def _without_metadata(document: Any) -> bool:
    metadata = document.pop("__metadata__", {})
    kept = {name: value for name, value in metadata.items() if name == "format"}
    if kept:
        document["__metadata__"] = kept
    return bool(metadata != kept)


def _without_extras(document: Any) -> bool:
    had = [place.pop("extras", None) for place in (document, document.get("asset", {}))]
    return had != [None, None]
