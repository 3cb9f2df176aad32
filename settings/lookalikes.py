"""Variables that nobody reads, and that look as if they were meant for us."""

import difflib
import os
from collections.abc import Iterable

# As alike as COMFYUI_ULR and COMFYUI_URL. Less catches what Kubernetes and others put there.
_ALIKE = 0.84


def misspelt(names: Iterable[str], known: Iterable[str]) -> list[tuple[str, str]]:
    """Each name that is none of the known, with the known one that is perhaps meant.

    A known one that is among the names as well is not what was meant.
    """
    ours = sorted(known)
    given = {name.upper(): name for name in names}
    found = []
    for upper, name in sorted(given.items()):
        near = difflib.get_close_matches(upper, ours, n=1, cutoff=_ALIKE)
        if upper not in ours and near and near[0] not in given:
            found.append((name, near[0]))
    return found


def in_environment(known: Iterable[str]) -> list[tuple[str, str]]:
    """The same of this process's environment, where what is empty is not set."""
    return misspelt([name for name, value in os.environ.items() if value], known)
