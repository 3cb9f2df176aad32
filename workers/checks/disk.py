"""Whether there is room for files on their way."""

import shutil
import tempfile
from pathlib import Path

from workers.checks.finding import Judgement, fail, ok, warn

# Inputs that are fetched, and outputs that are cleaned of metadata, at the same time.
_FILES = 4


def check_disk(largest_bytes: int, folder: Path | None = None) -> Judgement:
    """Whether the temporary folder takes files, and has room for some.

    Args:
        largest_bytes: of an input.
        folder: default: where Python puts temporary files.
    """
    try:
        place = folder or Path(tempfile.gettempdir())
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"x")
            file.flush()
        free = shutil.disk_usage(place).free
    except OSError as error:
        return fail(
            f"no temporary file can be written ({error.strerror or type(error).__name__})",
            "free that disk or mount a writable one, or name a folder in TMPDIR",
        )
    return judge_room(free, largest_bytes, place)


def judge_room(free_bytes: int, largest_bytes: int, folder: Path) -> Judgement:
    """What it means for files of jobs that a folder has so many bytes left."""
    sentence = f"the temporary folder {folder} has {free_bytes / 2**20:,.0f} MiB left"
    fix = "free that disk, or name another folder in TMPDIR"
    if free_bytes < largest_bytes:
        return fail(f"{sentence}, less than one input may have (INPUT_MAX_BYTES)", fix)
    if free_bytes < _FILES * largest_bytes:
        return warn(f"{sentence}, which several inputs may fill (INPUT_MAX_BYTES)", fix)
    return ok(sentence)
