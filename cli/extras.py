"""Commands that need more than is always installed."""

from collections.abc import Iterator
from contextlib import contextmanager

from cli.errors import CommandError


@contextmanager
def needing_extra(extra: str) -> Iterator[None]:
    """Say what to install if something is missing.

    Raises:
        CommandError: it is.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise CommandError(
            f"{error.name} is not installed: pip install '.[{extra}]' in a clone of comfyfleet"
        ) from error
