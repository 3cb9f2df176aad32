"""How the C library keeps memory that nobody uses: hardly at all."""

import ctypes

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
