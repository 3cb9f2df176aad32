"""What a check has found."""

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Judgement:
    """What an answer means.

    Attributes:
        status: how bad it is.
        sentence: what is so.
        fix: what to do about it; empty where nothing is to be done.
        heals: whether it may become well without anybody changing this worker's settings, or those
            of the server that they name.
    """

    status: Status
    sentence: str
    fix: str = ""
    heals: bool = True


@dataclass(frozen=True)
class Finding:
    """A judgement with the name of its check, and the seconds that it took."""

    name: str
    status: Status
    sentence: str
    fix: str = ""
    seconds: float = 0.0


def ok(sentence: str) -> Judgement:
    """All is well."""
    return Judgement(Status.OK, sentence)


def warn(sentence: str, fix: str) -> Judgement:
    """Jobs are done, and something is to be known."""
    return Judgement(Status.WARN, sentence, fix)


def fail(sentence: str, fix: str, *, heals: bool = True) -> Judgement:
    """Jobs are not done, or may be lost."""
    return Judgement(Status.FAIL, sentence, fix, heals)


def skipped(why: str) -> Judgement:
    """It could not be found out."""
    return Judgement(Status.SKIPPED, why)
