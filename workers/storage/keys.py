"""Object keys, as functions of values. No name from outside can leave its job's folder."""

import hashlib
import re
from urllib.parse import quote

_MOST_KEY_BYTES = 1024
_MOST_FOLDER_BYTES = 128
_MOST_NAME_BYTES = 180
_MOST_EXTENSION_BYTES = 16


def job_folder(worker_prefix: str, output_prefix: str, job_id: str) -> str:
    """The folder, without a slash at its end, of everything that a job stores."""
    return "/".join(part for part in (worker_prefix, output_prefix, _folder(job_id)) if part)


def manifest_key(folder: str) -> str:
    """The key of the manifest in a job's folder."""
    return f"{folder}/manifest.json"


def output_key(folder: str, attempt: int, node_id: str, index: int, filename: str) -> str:
    """The key of an output file in a job's folder.

    Attempt, node and index keep keys apart; the name is for people, and cut where the key would
    have more than 1,024 bytes.
    """
    start = f"{folder}/{attempt}/{_folder(node_id)}/{index}-"
    return start + plain_name(
        filename, min(_MOST_NAME_BYTES, _MOST_KEY_BYTES - len(start.encode()))
    )


def thumbnail_key(folder: str, attempt: int, node_id: str, index: int, filename: str) -> str:
    """The key of an output's thumbnail, beside the output; no output can have it."""
    start = f"{folder}/{attempt}/{_folder(node_id)}/{index}.thumbnail-"
    end = ".webp"
    room = _MOST_KEY_BYTES - len(start.encode()) - len(end)
    return start + plain_name(filename, min(_MOST_NAME_BYTES, room)) + end


def _folder(text: str) -> str:
    quoted = quote(text, safe=":", errors="surrogatepass")
    if quoted.strip(".") == "" or len(quoted) > _MOST_FOLDER_BYTES:
        # The equals sign is in no quoted text: no other name can be this one.
        return "sha256=" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return quoted


def plain_name(filename: str, most_bytes: int) -> str:
    """The last part of a file name, printable, its extension kept where it has to be cut."""
    # The index before it keeps names apart, so that this may lose what it likes.
    last = re.split(r"[/\\]", filename)[-1]
    printable = "".join(c if c.isprintable() else "_" for c in last)
    stem, dot, extension = printable.rpartition(".")
    if not dot or len(extension.encode()) > _MOST_EXTENSION_BYTES:
        stem, extension = printable, ""
    room = max(0, most_bytes - len(extension.encode()) - 1)
    stem = stem.encode()[:room].decode(errors="ignore")
    return f"{stem}{dot and extension and '.' + extension}" or "file"
