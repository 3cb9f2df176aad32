"""The model files that a server has: empty files where a real server has gigabytes."""

from collections.abc import Iterable
from pathlib import Path

from sandbox.comfyui.files import EscapeError, within

CHECKPOINTS = (
    "sd_xl_base_1.0.safetensors",
    "sd_xl_refiner_1.0.safetensors",
    "v1-5-pruned-emaonly-fp16.safetensors",
    "v1-5-pruned-emaonly.safetensors",
)
DEFAULT_MODELS = tuple(f"checkpoints/{name}" for name in CHECKPOINTS)

# Observed on a running 0.3.64: nothing else in a folder is listed, and capitals make no difference.
_SUFFIXES = frozenset((".bin", ".ckpt", ".pkl", ".pt", ".pt2", ".pth", ".safetensors", ".sft"))


class ModelFiles:
    """The files under `models/<folder>/`, looked up anew each time: one more appears at once."""

    def __init__(self, directory: Path, folders: Iterable[str]) -> None:
        """Name the directory, which may be missing, and the folders that the server knows."""
        self._directory = directory
        self._folders = frozenset(folders)

    def place(self, models: Iterable[str]) -> None:
        """Make an empty file of each `FOLDER/NAME`, where there is no such file.

        Raises:
            ValueError: the folder is unknown, or the name is no model's.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        for model in models:
            folder, _, name = model.partition("/")
            if folder not in self._folders:
                known = ", ".join(sorted(self._folders))
                raise ValueError(f"{model!r} is in no model folder of this server: {known}")
            path = self._path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()

    def listed(self, folder: str) -> list[str]:
        """The names in a folder, with `/` before those in folders below it; sorted."""
        root = self._directory / folder
        return sorted(
            path.relative_to(root).as_posix()
            for path in root.rglob("*")
            if path.suffix.lower() in _SUFFIXES and path.is_file()
        )

    def _path(self, folder: str, name: str) -> Path:
        try:
            path = within(self._directory / folder, name)
        except EscapeError as error:
            raise ValueError(str(error)) from error
        if path.suffix.lower() not in _SUFFIXES:
            known = ", ".join(sorted(_SUFFIXES))
            raise ValueError(f"{folder}/{name} is no model's name: it ends in none of {known}")
        return path
