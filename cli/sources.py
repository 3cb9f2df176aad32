"""Where input files come from: a URL as it is, a file of this machine inside the job."""

import base64
import mimetypes
import re
from collections.abc import Iterable
from pathlib import Path

from cli.errors import UsageError
from cli.rows import pairs
from tasks.request import shown

# Redis holds all that waits in memory, so that larger files are the object store's.
MOST_BYTES = 4_000_000
# Of all the jobs of a batch, each of which has them.
MOST_BYTES_IN_ALL = 100_000_000

_URL = re.compile(r"data:|[a-z][a-z0-9+.-]*://", re.IGNORECASE)


def read_sources(given: Iterable[str], jobs: int) -> dict[str, str]:
    """Values of `--input`, `NAME=PATH_OR_URL`, as the URLs of a job's `inputs`.

    Args:
        given: the values.
        jobs: how many jobs get them.

    Raises:
        UsageError: one of them is none, a file cannot be read, or is too large to travel along.
    """
    sources = pairs("--input", given)
    files = {name: Path(one) for name, one in sources.items() if not _URL.match(one)}
    for path in files.values():
        if not path.is_file():
            raise UsageError(f"--input: there is no file {path}")
        _check_size(path, MOST_BYTES, "with a job")
    if sum(path.stat().st_size for path in files.values()) * jobs > MOST_BYTES_IN_ALL:
        largest = max(files.values(), key=lambda path: path.stat().st_size)
        _check_size(largest, MOST_BYTES_IN_ALL // jobs // len(files), f"with each of {jobs} jobs")
    return {**sources, **{name: _data_url(path) for name, path in files.items()}}


def _check_size(path: Path, most: int, with_what: str) -> None:
    size = path.stat().st_size
    if size > most:
        raise UsageError(
            f"--input: {shown(str(path))} has {size / 1e6:.1f} MB, and at most {most / 1e6:.1f} MB "
            f"can travel {with_what}; put it on S3 and give its s3:// URL"
        )


def _data_url(path: Path) -> str:
    media_type, _ = mimetypes.guess_type(path.name)
    content = base64.b64encode(path.read_bytes()).decode()
    return f"data:{media_type or 'application/octet-stream'};base64,{content}"
