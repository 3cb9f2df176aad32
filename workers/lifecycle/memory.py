"""Memory that nobody uses is given back; what is there to stay is not looked at again."""

import ctypes
import gc

# Parameters of glibc's mallopt(3).
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

# Pieces of files are larger: they go back to the system as soon as they are stored.
_LARGE_BYTES = 64 * 1024


def keep_little() -> None:
    """Have glibc keep no memory for each thread, nor large pieces; elsewhere nothing changes."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)


def keep_for_good() -> None:
    """Have the collector leave alone what is there now: modules, classes, models of services.

    Half a second of a core otherwise goes into looking at them, most of it when the process ends.
    """
    gc.collect()
    gc.freeze()
