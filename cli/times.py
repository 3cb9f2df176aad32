"""Moments and durations, as people write and read them."""

import re
import time
from datetime import UTC, datetime

import typer

from tasks.request import shown

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_AGO = re.compile(r"(\d+(?:\.\d+)?)([smhd])")


def read_moment(option: str, text: str, now: float | None = None) -> float:
    """A moment, Unix time: so long ago as `90s`, `15m`, `2h` or `1d`, or a date, perhaps with time.

    Raises:
        typer.BadParameter: it is neither.
    """
    if found := _AGO.fullmatch(text.strip()):
        return (time.time() if now is None else now) - float(found[1]) * _UNITS[found[2]]
    try:
        moment = datetime.fromisoformat(text.strip())
        # Without an offset it is meant as this machine's clock shows it.
        return moment.timestamp()
    except (ValueError, OverflowError, OSError):
        raise typer.BadParameter(
            f"found {shown(text)}, expected a time such as 15m, 2h, 1d or 2026-01-31T12:00",
            param_hint=option,
        ) from None


def clock(at: float) -> str:
    """A moment of any day."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def duration(seconds: float) -> str:
    """How long something took, or is ago, in one unit or two."""
    seconds = max(0.0, seconds)
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 2 * 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"
