"""Files of a server in folders of ours: whole or not at all, never elsewhere, never over others."""

import errno
import itertools
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from workers.storage.keys import plain_name

_PIECE_BYTES = 256 * 1024
# File systems allow 255; a number and the name of the unfinished file want some of them.
_MOST_NAME_BYTES = 180


def local_name(filename: str) -> str:
    """A name of one part, printable and not hidden, for a file that has this name on a server."""
    return plain_name(filename, _MOST_NAME_BYTES).lstrip(". ") or "file"


def places(folder: Path, filename: str) -> Iterator[Path]:
    """Where a file of this name may lie in a folder, best first: with a number after the first."""
    name = local_name(filename)
    yield folder / name
    stem, extension = Path(name).stem, Path(name).suffix
    yield from (folder / f"{stem}-{number}{extension}" for number in itertools.count(2))


def pieces(read: Callable[[int], bytes]) -> Iterator[bytes]:
    """What is read, piece by piece, until there is nothing more."""
    return iter(lambda: read(_PIECE_BYTES), b"")


def save(content: Iterable[bytes], folder: Path, filename: str) -> Path:
    """Write a file into a folder, at the first of its places that is free.

    Args:
        content: of the file.
        folder: where to.
        filename: what the server calls it.

    Returns:
        Where it is.

    Raises:
        OSError: it cannot be written.
        Exception: what reading the content raises.
    """
    with _part(content, folder) as part:
        path = next(path for path in places(folder, filename) if _reserved(path))
        part.replace(path)
    return path


def write(content: Iterable[bytes], path: Path, *, overwrite: bool) -> None:
    """Write a file where it is wanted.

    Raises:
        FileExistsError: there is one that is not to be overwritten, or something that is no file.
        OSError: it cannot be written.
        Exception: what reading the content raises.
    """
    with _part(content, path.parent) as part:
        # A device would be replaced, too.
        if not _reserved(path) and not (overwrite and path.is_file()):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        part.replace(path)


@contextmanager
def _part(content: Iterable[bytes], folder: Path) -> Iterator[Path]:
    """The whole content under a name of its own; what is not renamed is removed."""
    part = folder / f".{uuid.uuid4().hex}.part"
    try:
        with part.open("xb") as file:
            file.writelines(content)
        yield part
    finally:
        part.unlink(missing_ok=True)


def _reserved(path: Path) -> bool:
    """Whether the path was free; now it is not."""
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
