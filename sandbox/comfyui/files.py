"""The server's folders: where inputs, outputs and previews lie, and how files are named in them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path


class EscapeError(Exception):
    """A name points outside the folder that it was meant for."""


@dataclass(frozen=True)
class Folders:
    """The folders `input`, `output` and `temp` under one directory."""

    directory: Path

    def create(self) -> None:
        """Create the folders where they are missing."""
        for kind in ("input", "output", "temp"):
            (self.directory / kind).mkdir(parents=True, exist_ok=True)

    def of(self, kind: str) -> Path | None:
        """The folder of files of type `kind`, or `None` when there is no such type."""
        return self.directory / kind if kind in ("input", "output", "temp") else None

    def locate(self, reference: Mapping[str, str]) -> Path:
        """Find the file that a client names by `filename`, `subfolder` and `type`.

        Raises:
            FileNotFoundError: There is no such file, or none is named.
            ValueError: The name is no file name, or the type is unknown.
            EscapeError: The subfolder leaves its folder.
        """
        if "filename" not in reference:
            raise FileNotFoundError
        name, folder = self.annotated(reference["filename"], reference.get("type", "output"))
        if not name or name.startswith("/") or ".." in name or folder is None:
            raise ValueError(name)
        path = within(folder, reference.get("subfolder", "")) / Path(name).name
        if not path.is_file():
            raise FileNotFoundError(path)
        return path

    def annotated(self, name: str, kind: str) -> tuple[str, Path | None]:
        """Split `name [output]` into name and folder; without a note it is that of `kind`."""
        noted = re.fullmatch(r"(.*?) ?\[(input|output|temp)\]", name)
        return (noted[1], self.of(noted[2])) if noted else (name, self.of(kind))


def within(folder: Path, subfolder: str) -> Path:
    """Return `folder / subfolder`.

    Raises:
        EscapeError: The result lies outside `folder`.
    """
    root = folder.resolve()
    path = (root / subfolder).resolve()
    if not path.is_relative_to(root):
        raise EscapeError(f"{subfolder!r} is outside of {folder.name}")
    return path


@dataclass(frozen=True)
class Series:
    """Numbered files of one prefix: `shots/demo` gives `demo_00001_.png` in subfolder `shots`."""

    folder: Path
    stem: str
    subfolder: str
    first: int

    def name(self, index: int, extension: str) -> str:
        """The file name of the image with this index in its batch."""
        return f"{self.stem}_{self.first + index:05}_.{extension}"


def open_series(folder: Path, prefix: str) -> Series:
    """Continue the numbering of `prefix` after the highest number there is, whatever its extension.

    Raises:
        EscapeError: The prefix leaves `folder`.
    """
    stem = prefix.rpartition("/")[2]
    # The underscore gives an empty stem (`shots/`) a name of its own, so that `parent` is right.
    target = within(folder, f"{prefix}_").parent
    target.mkdir(parents=True, exist_ok=True)
    numbered = re.compile(re.escape(stem) + r"_(\d+)_?\..*")
    taken = [int(found[1]) for path in target.iterdir() if (found := numbered.fullmatch(path.name))]
    subfolder = target.relative_to(folder.resolve()).as_posix()
    return Series(target, stem, "" if subfolder == "." else subfolder, max(taken, default=0) + 1)


def free_path(path: Path, content: bytes) -> Path:
    """Where an upload goes that may not overwrite: `a.png`, else `a (1).png`, `a (2).png`...

    A file that already has this very content is returned as it is.
    """
    candidate = path
    for number in count(1):
        if not candidate.exists() or candidate.read_bytes() == content:
            break
        candidate = path.with_name(f"{path.stem} ({number}){path.suffix}")
    return candidate
