"""How long jobs execute on this server, with their models loaded and without."""

import math
import threading
from dataclasses import dataclass, replace
from typing import NamedTuple

# What the newest job says, against all before it.
_NEWEST_SHARE = 0.3
# Sets of models that are remembered.
_MOST_REMEMBERED = 64


@dataclass(frozen=True)
class _Seconds:
    warm: float | None = None
    cold: float | None = None


class _Known(NamedTuple):
    warm: float
    cold: float


class Pace:
    """Seconds that jobs of each set of models execute, as a rule. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds: dict[str, _Seconds] = {}

    def note(self, models: str, seconds: float, *, cold: bool) -> None:
        """Note how long a job executed; `cold` if its models had to be loaded for it."""
        if not models:
            return
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
        known = self._known(models)
        return max(0.0, known.cold - known.warm) if known is not None else None

    def worth(self, models: str) -> int | None:
        """For how many jobs waiting it pays to load these models elsewhere; None: nobody knows."""
        known = self._known(models)
        return math.ceil(max(known.cold, known.warm) / known.warm) if known is not None else None

    def _known(self, models: str) -> _Known | None:
        """Of these models, or else, as a guess, of those that were noted last."""
        with self._lock:
            these = [self._seconds[models]] if models in self._seconds else []
            guesses = [*reversed(self._seconds.values())]
        for one in (*these, *guesses):
            if one.warm and one.cold is not None:
                return _Known(one.warm, one.cold)
        return None


def _mean(before: float | None, newest: float) -> float:
    return newest if before is None else before + _NEWEST_SHARE * (newest - before)
