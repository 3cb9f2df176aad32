"""How long jobs execute on this server, with their models loaded and without."""

import math
import threading
from dataclasses import dataclass, replace

# What the newest job says, against all before it.
_NEWEST_SHARE = 0.3
# Sets of models that are remembered.
_MOST_REMEMBERED = 64


@dataclass(frozen=True)
class _Seconds:
    warm: float | None = None
    cold: float | None = None


class Pace:
    """Seconds that jobs of each set of models execute, as a rule. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds: dict[str, _Seconds] = {}

    def note(self, models: str, seconds: float, *, cold: bool) -> None:
        """Note how long a job executed; `cold` if its models had to be loaded for it."""
        with self._lock:
            known = self._seconds.pop(models, _Seconds())
            if cold:
                known = replace(known, cold=_mean(known.cold, seconds))
            else:
                known = replace(known, warm=_mean(known.warm, seconds))
            # The newest are the last.
            self._seconds[models] = known
            if len(self._seconds) > _MOST_REMEMBERED:
                del self._seconds[next(iter(self._seconds))]

    def loading(self, models: str) -> float | None:
        """Seconds that it takes to load these models; None if nobody knows."""
        known = self._seconds.get(models, _Seconds())
        if known.cold is None or known.warm is None:
            return None
        return max(0.0, known.cold - known.warm)

    def worth(self, models: str) -> int | None:
        """For how many jobs waiting it pays to load these models elsewhere; None: nobody knows."""
        seconds, loading = self._seconds.get(models, _Seconds()).warm, self.loading(models)
        if not seconds or loading is None:
            return None
        return math.ceil((loading + seconds) / seconds)


def _mean(before: float | None, newest: float) -> float:
    return newest if before is None else before + _NEWEST_SHARE * (newest - before)
