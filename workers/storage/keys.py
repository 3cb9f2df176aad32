"""Object keys, as functions of values. No name from outside can leave its job's folder."""

import hashlib
import re
from urllib.parse import quote

# A key may have 1,024 bytes; these leave room for prefixes and numbers.
_MOST_FOLDER_BYTES = 128
_MOST_NAME_BYTES = 180


def job_folder(worker_prefix: str, output_prefix: str, job_id: str) -> str:
    """The folder, without a slash at its end, of everything that a job stores."""
    return "/".join(part for part in (worker_prefix, output_prefix, _folder(job_id)) if part)


def manifest_key(folder: str) -> str:
    """The key of the manifest in a job's folder."""
    return f"{folder}/manifest.json"


def output_key(folder: str, attempt: int, node_id: str, index: int, filename: str) -> str:
    """The key of an output file in a job's folder."""
    return f"{folder}/{attempt}/{_folder(node_id)}/{index}-{_name(filename)}"


def _folder(text: str) -> str:
    quoted = quote(text, safe=":", errors="surrogatepass")
    if quoted.strip(".") == "" or len(quoted) > _MOST_FOLDER_BYTES:
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return quoted


def _name(filename: str) -> str:
    # The index before it keeps names apart, so that this may lose what it likes.
    last = re.split(r"[/\\]", filename)[-1]
    printable = "".join(c if c.isprintable() else "_" for c in last)
    stem, dot, extension = printable.rpartition(".")
    if not dot or len(extension.encode()) > 16:
        stem, extension = printable, ""
    room = _MOST_NAME_BYTES - len(extension.encode()) - 1
    stem = stem.encode()[:room].decode(errors="ignore")
    return f"{stem}{dot and extension and '.' + extension}" or "file"
