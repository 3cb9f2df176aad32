"""What happens after an attempt failed: a decision from values alone."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

from tasks.errors import (
    BrokerFullError,
    BrokerUnavailableError,
    ComfyUIAccessDeniedError,
    ComfyUIHungError,
    ComfyUIProtocolError,
    ComfyUIUnavailableError,
    HistoryUnreadableError,
    InputUnavailableError,
    JobError,
    OutOfMemoryError,
    OutputMissingError,
    PromptInterruptedError,
    PromptLostError,
    PromptStalledError,
    StorageDeniedError,
    StorageUnavailableError,
    TransientError,
)
from tasks.result import Attempt

BASE_SECONDS = 2.0
CAP_SECONDS = 60.0

# What cost no GPU time may come again more often, but must end some time too.
_MOST_ATTEMPTS = 10

# After these the prompt is over; after the others it may still run, or have ended well.
_SPENT = (
    ComfyUIHungError,
    HistoryUnreadableError,
    OutOfMemoryError,
    OutputMissingError,
    PromptInterruptedError,
    PromptLostError,
    PromptStalledError,
)
# Of a server that is away, and of what stands before it.
_AWAY = (ComfyUIAccessDeniedError, ComfyUIProtocolError, ComfyUIUnavailableError)
# While a prompt executes these mean that it took the server with it, or at least may have.
_GONE = (ComfyUIHungError, ComfyUIUnavailableError, PromptLostError)


class Where(Enum):
    """Where the next attempt should run."""

    HERE = "here"
    ELSEWHERE = "elsewhere"
    ANYWHERE = "anywhere"


@dataclass(frozen=True)
class Failure:
    """An attempt that failed, with what the decision depends on.

    Attributes:
        error: what ended it.
        instance: base URL of the ComfyUI server that it ran on.
        elapsed: seconds that it took.
        executing: whether the server was executing the prompt, as far as anybody knows.
        waited: whether nothing was wrong but that the server was away.
        rendered: whether the prompt had ended well.
        earlier: the attempts before it.
        failures: how many of those count against the limit.
        crashes: how often the job has taken a worker or a ComfyUI down before.
        elsewhere: whether another server is there to try.
    """

    error: JobError
    instance: str
    elapsed: float = 0.0
    executing: bool = False
    waited: bool = False
    rendered: bool = False
    earlier: Sequence[Attempt] = ()
    failures: int = 0
    crashes: int = 0
    elsewhere: bool = False

    @property
    def crashed(self) -> bool:
        """Whether the job took its ComfyUI down, as far as can be told."""
        return self.executing and isinstance(self.error, _GONE)


@dataclass(frozen=True)
class Retry:
    """Try again.

    Attributes:
        seconds: how long to wait before.
        where: a wish, as the place may be gone by then.
        spent: a new prompt is needed; else the one that was may be adopted or collected.
        counts: whether this failure counts against the limit.
        free_memory: have the server let go of models and caches first.
        bypass_cache: have the node whose output is gone execute again.
    """

    seconds: float
    where: Where = Where.ANYWHERE
    spent: bool = False
    counts: bool = True
    free_memory: bool = False
    bypass_cache: bool = False


@dataclass(frozen=True)
class Fail:
    """The job has failed."""


@dataclass(frozen=True)
class PutAside:
    """The job is put aside: it takes down whoever tries it."""


def after_failure(
    failure: Failure, *, max_attempts: int, max_crashes: int, jitter: float
) -> Retry | Fail | PutAside:
    """Decide what follows the failure of an attempt.

    Args:
        failure: the attempt.
        max_attempts: how many a job may have that count.
        max_crashes: how often a job may take a worker or a ComfyUI down.
        jitter: a random number in [0, 1), so that jobs which failed together do not return so.
    """
    error = failure.error
    if not isinstance(error, TransientError):
        return Fail()
    if failure.crashes + failure.crashed >= max_crashes:
        return PutAside()
    if _costs_nothing(failure):
        spent = isinstance(error, PromptLostError)
        return Retry(_backoff(failure, jitter), _where(failure), spent=spent, counts=False)
    decision = _next_attempt(failure, jitter)
    if failure.crashed and max_attempts > 1 and isinstance(decision, Retry):
        # Bounded by its own limit: the server may have died of something else.
        return replace(decision, counts=False)
    return Fail() if failure.failures + 1 >= max_attempts else decision


def _costs_nothing(failure: Failure) -> bool:
    """Whether another attempt pays for no GPU time again, and it is not the job's fault."""
    if len(failure.earlier) + 1 >= _MOST_ATTEMPTS:
        return False
    match failure.error:
        case BrokerUnavailableError() | BrokerFullError() | InputUnavailableError():
            return True
        case StorageUnavailableError():
            # What was rendered lies on the server.
            return True
        case PromptLostError():
            return not failure.executing
        case ComfyUIUnavailableError() if failure.rendered:
            return True
        case _:
            return failure.waited and isinstance(failure.error, _AWAY)


def _where(failure: Failure) -> Where:
    """The place for an attempt after one that cost nothing."""
    if failure.rendered:
        return Where.HERE
    away = isinstance(failure.error, _AWAY)
    return Where.ELSEWHERE if away and failure.elsewhere else Where.ANYWHERE


def _next_attempt(failure: Failure, jitter: float) -> Retry | Fail:
    error = failure.error
    match error:
        case OutOfMemoryError():
            return _after_out_of_memory(failure, jitter)
        case OutputMissingError():
            # The cache names files that are gone. Once it has been bypassed, it is not the cache.
            if _has_had(failure.earlier, OutputMissingError):
                return Fail()
            return Retry(0.0, Where.HERE, spent=True, bypass_cache=True)
        case StorageDeniedError() | StorageUnavailableError():
            return Retry(_backoff(failure, jitter), Where.HERE)
        case _:
            its_fault = not isinstance(error, PromptInterruptedError)
            where = Where.ELSEWHERE if its_fault and failure.elsewhere else Where.ANYWHERE
            return Retry(_backoff(failure, jitter), where, spent=isinstance(error, _SPENT))


def _after_out_of_memory(failure: Failure, jitter: float) -> Retry | Fail:
    here = [attempt for attempt in failure.earlier if attempt.instance == failure.instance]
    if not _has_had(here, OutOfMemoryError):
        return Retry(0.0, Where.HERE, spent=True, free_memory=True)
    if failure.elsewhere:
        return Retry(_backoff(failure, jitter), Where.ELSEWHERE, spent=True)
    return Fail()


def _has_had(attempts: Sequence[Attempt], leaf: type[JobError]) -> bool:
    return any((attempt.error or "").startswith(f"{leaf.__name__}:") for attempt in attempts)


def _backoff(failure: Failure, jitter: float) -> float:
    """Seconds from the failed attempt's start, doubling: a long one has waited enough."""
    longest: float = min(CAP_SECONDS, BASE_SECONDS * 2 ** len(failure.earlier))
    delay = longest * (0.5 + jitter / 2)
    return max(BASE_SECONDS / 4, delay - failure.elapsed)
