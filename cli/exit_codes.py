"""What the exit code of a command says to other programs, the same for all commands."""

from enum import IntEnum
from typing import Self


class ExitCode(IntEnum):
    """How a command ended."""

    meaning: str

    def __new__(cls, value: int, meaning: str) -> Self:
        """A number with what it means."""
        one = int.__new__(cls, value)
        one._value_ = value
        one.meaning = meaning
        return one

    OK = 0, "It did what it was asked to; the job succeeded."
    FAILED = 1, "It could not; or the job failed, or was cancelled."
    USAGE = 2, "The command line or a setting is wrong."
    NOT_FINISHED = 3, "The job, or the batch, has not ended yet; no server is live."
    UNKNOWN = 4, "Nobody knows the job, or the batch."
    INTERRUPTED = 130, "It was interrupted, by Ctrl-C or a signal; jobs go on."
