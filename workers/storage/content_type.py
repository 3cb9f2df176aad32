"""A file's media type, told from its bytes: names lie, and some nodes give none."""

import json

import puremagic

HEAD_BYTES = 4096

UNKNOWN = "application/octet-stream"

# What the library calls by another name than browsers do.
_ALIASES = {
    "audio/wave": "audio/wav",
    "audio/x-wav": "audio/wav",
    "image/x-ms-bmp": "image/bmp",
    "application/x-matroska": "video/x-matroska",
}

# How the first packet of an Ogg file begins, behind the head of its page.
_OGG_AUDIO = (b"OpusHead", b"\x01vorbis", b"\x7fFLAC")


def content_type(head: bytes) -> str:
    """The media type of a file that starts with these bytes.

    Args:
        head: the first 4,096 bytes, or the whole file if it is shorter.
    """
    # Text first: a short magic number such as BM is also the start of a sentence.
    text = _as_text(head)
    if text is not None:
        return _text_type(text, complete=len(head) < HEAD_BYTES)
    if (known := _of_container(head)) is not None:
        return known
    try:
        guesses = puremagic.magic_string(head)
    except (puremagic.PureError, ValueError):
        return UNKNOWN
    named = (guess.mime_type for guess in guesses if guess.mime_type)
    media_type = next(named, UNKNOWN)
    return _ALIASES.get(media_type, media_type)


def _of_container(head: bytes) -> str | None:
    """What the library knows no name of, or only that of the container."""
    if head.startswith(b"glTF"):
        return "model/gltf-binary"
    if head[4:12] in (b"ftypM4A ", b"ftypM4B "):
        return "audio/mp4"
    if head.startswith(b"OggS") and head[28:].startswith(_OGG_AUDIO):
        return "audio/ogg"
    return None


def _as_text(head: bytes) -> str | None:
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        # At the end of the head a character may be cut in two.
        if len(head) < HEAD_BYTES or error.start < len(head) - 3:
            return None
        text = head[: error.start].decode()
    return text if text and all(c >= " " or c in "\t\n\r\f" for c in text) else None


def _text_type(text: str, *, complete: bool) -> str:
    start = text.lstrip("\ufeff \t\n\r")
    if start.startswith("<svg") or (start.startswith("<?xml") and "<svg" in start):
        return "image/svg+xml"
    if start.startswith(("{", "[")) and (not complete or _is_json(start)):
        return "application/json"
    return "text/plain; charset=utf-8"


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
