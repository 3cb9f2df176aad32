"""What follows the failure of an attempt: a row for each leaf, and what holds for all of them."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks import errors
from tasks.errors import (
    ComfyUIHungError,
    ComfyUIUnavailableError,
    JobError,
    NodeFailedError,
    OutOfMemoryError,
    OutputMissingError,
    PromptInterruptedError,
    PromptLostError,
    PromptStalledError,
    StorageDeniedError,
    StorageUnavailableError,
    TransientError,
    WorkerDiedError,
)
from tasks.result import Attempt
from tasks.retry import (
    BASE_SECONDS,
    CAP_SECONDS,
    Fail,
    Failure,
    PutAside,
    Retry,
    Where,
    after_failure,
)
from tests.unit.test_errors import LEAVES

HERE, THERE = "http://here", "http://there"
Decision = Retry | Fail | PutAside

# The first failure of a job that was not seen executing nor has rendered, with another server to
# try.
ROWS: dict[type[JobError], Decision] = {
    errors.ComfyUIUnavailableError: Retry(1.0, Where.ELSEWHERE),
    errors.ComfyUIProtocolError: Retry(1.0, Where.ELSEWHERE),
    errors.ComfyUIAccessDeniedError: Retry(1.0, Where.ELSEWHERE),
    errors.ComfyUIHungError: Retry(1.0, Where.ELSEWHERE, spent=True),
    errors.PromptStalledError: Retry(1.0, Where.ELSEWHERE, spent=True),
    errors.HistoryUnreadableError: Retry(1.0, Where.ELSEWHERE, spent=True),
    errors.PromptInterruptedError: Retry(1.0, spent=True),
    errors.PromptLostError: Retry(1.0, spent=True, counts=False),
    errors.OutOfMemoryError: Retry(0.0, Where.HERE, spent=True, free_memory=True),
    errors.OutputMissingError: Retry(0.0, Where.HERE, spent=True, bypass_cache=True),
    errors.StorageUnavailableError: Retry(1.0, counts=False),
    errors.StorageDeniedError: Retry(1.0, Where.HERE),
    errors.InputUnavailableError: Retry(1.0, counts=False),
    errors.BrokerUnavailableError: Retry(1.0, counts=False),
    errors.BrokerFullError: Retry(1.0, counts=False),
    errors.WorkerDiedError: Retry(1.0, Where.ELSEWHERE),
    errors.InvalidRequestError: Fail(),
    errors.InvalidWorkflowError: Fail(),
    errors.InvalidInputError: Fail(),
    errors.NodeFailedError: Fail(),
    errors.NodeForbiddenError: Fail(),
    errors.OutputTooLargeError: Fail(),
    errors.UntrustedMessageError: Fail(),
    errors.JobTimeoutError: Fail(),
    errors.PoisonedJobError: Fail(),
    errors.InternalError: Fail(),
    errors.JobCancelledError: Fail(),
    errors.JobExpiredError: Fail(),
}
# Of a prompt that was executing these mean that the server went down with it.
GONE = {ComfyUIHungError, ComfyUIUnavailableError, PromptLostError}
# Of these a server that is away, or what stands before it.
AWAY = [
    ComfyUIUnavailableError,
    errors.ComfyUIProtocolError,
    errors.ComfyUIAccessDeniedError,
]
TRANSIENT = [leaf for leaf in LEAVES if issubclass(leaf, TransientError)]


def decide(failure: Failure, *, attempts: int = 3, crashes: int = 3, jitter: float = 0) -> Decision:
    return after_failure(failure, max_attempts=attempts, max_crashes=crashes, jitter=jitter)


def failed(leaf: type[JobError], instance: str = HERE, number: int = 1) -> Attempt:
    error = f"{leaf.__name__}: x"
    return Attempt(number=number, instance=instance, prompt_id="p", error=error, seconds=1.0)


def played(
    leaf: type[JobError], *, attempts: int = 3, crashes: int = 3, most: int = 100, **known: bool
) -> Iterator[Decision]:
    """What is decided, one after the other, of a job whose every attempt fails in the same way."""
    failure = Failure(leaf("x"), HERE, **known)
    for number in range(1, most + 1):
        decision = decide(failure, attempts=attempts, crashes=crashes)
        yield decision
        if not isinstance(decision, Retry):
            return
        moves = decision.where is Where.ELSEWHERE
        failure = replace(
            failure,
            earlier=(*failure.earlier, failed(leaf, failure.instance, number)),
            failures=failure.failures + decision.counts,
            crashes=failure.crashes + failure.crashed,
            instance=({HERE: THERE, THERE: HERE}[failure.instance] if moves else failure.instance),
        )


# The table


def test_every_leaf_has_its_row() -> None:
    assert set(ROWS) == set(LEAVES)


@pytest.mark.parametrize("leaf", LEAVES)
def test_the_first_failure(leaf: type[JobError]) -> None:
    assert decide(Failure(leaf("x"), HERE, elsewhere=True)) == ROWS[leaf]


@pytest.mark.parametrize("leaf", LEAVES)
def test_alone_nobody_waits_for_an_elsewhere(leaf: type[JobError]) -> None:
    row = ROWS[leaf]
    if isinstance(row, Retry) and row.where is Where.ELSEWHERE:
        row = replace(row, where=Where.ANYWHERE)
    assert decide(Failure(leaf("x"), HERE)) == row


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("leaf", [StorageUnavailableError, ComfyUIUnavailableError])
def test_what_is_rendered_is_fetched_from_where_it_lies_and_costs_nothing(
    leaf: type[JobError], elsewhere: bool
) -> None:
    failure = Failure(leaf("x"), HERE, rendered=True, elsewhere=elsewhere)
    assert decide(failure) == Retry(1.0, Where.HERE, counts=False)
    # Though others may have counted before.
    assert decide(replace(failure, failures=2)) == Retry(1.0, Where.HERE, counts=False)


@pytest.mark.parametrize("leaf", AWAY)
def test_who_only_waited_for_a_server_that_is_away_has_not_failed(leaf: type[JobError]) -> None:
    waited = Failure(leaf("x"), HERE, waited=True)
    for failures, attempts in ((2, 3), (0, 1)):
        decision = decide(replace(waited, failures=failures), attempts=attempts)
        assert decision == Retry(1.0, counts=False)


@pytest.mark.parametrize("leaf", AWAY[1:])
def test_a_server_that_does_not_show_what_it_has_rendered_counts(leaf: type[JobError]) -> None:
    # As it does of files outside of its folders.
    decision = decide(Failure(leaf("x"), HERE, rendered=True, elsewhere=True))
    assert decision == Retry(1.0, Where.ELSEWHERE)


@pytest.mark.parametrize("leaf", AWAY)
def test_who_waits_for_a_server_that_is_away_goes_elsewhere(leaf: type[JobError]) -> None:
    waited = Failure(leaf("x"), HERE, waited=True, elsewhere=True)
    assert decide(waited) == Retry(1.0, Where.ELSEWHERE, counts=False)
    assert decide(replace(waited, elsewhere=False)) == Retry(1.0, Where.ANYWHERE, counts=False)


@pytest.mark.parametrize("rendered", [False, True])
def test_a_store_that_denies_access_counts_and_is_tried_from_here(rendered: bool) -> None:
    failure = Failure(StorageDeniedError("x"), HERE, rendered=rendered, elsewhere=True)
    assert decide(failure) == Retry(1.0, Where.HERE)


@pytest.mark.parametrize("leaf", LEAVES)
def test_who_takes_a_server_down(leaf: type[JobError]) -> None:
    assert Failure(leaf("x"), HERE, executing=True).crashed == (leaf in GONE)
    assert not Failure(leaf("x"), HERE, executing=False).crashed


# Attempts


@pytest.mark.parametrize(
    "leaf", [leaf for leaf in TRANSIENT if isinstance(row := ROWS[leaf], Retry) and row.counts]
)
def test_the_last_attempt_that_counts_fails_the_job(leaf: type[JobError]) -> None:
    assert decide(Failure(leaf("x"), HERE, failures=2), attempts=3) == Fail()
    assert decide(Failure(leaf("x"), HERE), attempts=1) == Fail()


def test_only_what_counted_counts() -> None:
    earlier = [failed(StorageUnavailableError, number=n) for n in range(1, 6)]
    failure = Failure(ComfyUIUnavailableError("x"), HERE, earlier=earlier, failures=1)
    assert isinstance(decide(failure), Retry)


def test_a_prompt_that_is_lost_while_it_executes_counts_as_a_crash_only() -> None:
    lost = Failure(PromptLostError("x"), HERE, executing=True, failures=2, crashes=1)
    assert decide(lost) == Retry(1.0, spent=True, counts=False)
    assert decide(replace(lost, crashes=2)) == PutAside()
    # Who wants a single attempt gets no second one.
    assert decide(replace(lost, failures=0), attempts=1) == Fail()


@pytest.mark.parametrize(
    "known", [{}, {"executing": True}, {"waited": True}, {"rendered": True}], ids=repr
)
@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("leaf", TRANSIENT)
def test_no_job_is_tried_for_ever(
    leaf: type[JobError], elsewhere: bool, known: dict[str, bool]
) -> None:
    decisions = list(played(leaf, elsewhere=elsewhere, **known))
    assert not isinstance(decisions[-1], Retry)
    # Ten that cost nothing, and those that count.
    assert len(decisions) <= 10 + 3


@pytest.mark.parametrize(
    ("leaf", "known"),
    [
        (StorageUnavailableError, {}),
        (StorageUnavailableError, {"rendered": True}),
        (ComfyUIUnavailableError, {"rendered": True}),
        (ComfyUIUnavailableError, {"waited": True}),
    ],
)
def test_what_costs_nothing_is_tried_ten_times(
    leaf: type[JobError], known: dict[str, bool]
) -> None:
    counts = [one.counts for one in played(leaf, **known) if isinstance(one, Retry)]
    assert counts == [False] * 9 + [True] * 2


# What each kind of failure asks for


@pytest.mark.parametrize("leaf", [StorageUnavailableError, StorageDeniedError])
@pytest.mark.parametrize("elsewhere", [False, True])
def test_no_failure_of_the_store_spends_the_prompt(leaf: type[JobError], elsewhere: bool) -> None:
    decisions = list(played(leaf, elsewhere=elsewhere, attempts=9))
    assert len(decisions) > 8
    assert not any(one.spent for one in decisions if isinstance(one, Retry))


def test_out_of_memory_alone_frees_memory_and_tries_here_once_more() -> None:
    first, *rest = played(OutOfMemoryError, attempts=9)
    assert first == Retry(0.0, Where.HERE, spent=True, free_memory=True)
    assert rest == [Fail()]


def test_out_of_memory_twice_goes_elsewhere_and_frees_memory_there_too() -> None:
    here = Retry(0.0, Where.HERE, spent=True, free_memory=True)
    first, second, third, fourth, *_ = played(OutOfMemoryError, attempts=9, elsewhere=True)
    assert (first, third) == (here, here)
    for decision in (second, fourth):
        assert isinstance(decision, Retry)
        assert (decision.where, decision.spent, decision.free_memory) == (
            *(Where.ELSEWHERE, True, False),
        )


def test_out_of_memory_ends_with_the_attempts() -> None:
    wheres = [getattr(one, "where", one) for one in played(OutOfMemoryError, elsewhere=True)]
    assert wheres == [Where.HERE, Where.ELSEWHERE, Fail()]


def test_the_cache_is_bypassed_once() -> None:
    assert list(played(OutputMissingError, attempts=9)) == [
        Retry(0.0, Where.HERE, spent=True, bypass_cache=True),
        Fail(),
    ]


def test_the_cache_is_bypassed_once_whatever_failed_in_between() -> None:
    earlier = [failed(OutputMissingError), failed(PromptInterruptedError, number=2)]
    failure = Failure(OutputMissingError("x"), HERE, earlier=earlier, failures=2)
    assert decide(failure, attempts=9) == Fail()


def test_an_interruption_by_a_person_is_not_the_servers_fault() -> None:
    decision = decide(Failure(PromptInterruptedError("x"), HERE, elsewhere=True))
    assert isinstance(decision, Retry)
    assert decision.where is Where.ANYWHERE


# Poison


@pytest.mark.parametrize("leaf", sorted(GONE, key=str))
def test_a_job_that_takes_its_server_down_each_time_is_put_aside(leaf: type[JobError]) -> None:
    *before, last = played(leaf, executing=True, attempts=9, crashes=3)
    assert len(before) == 2
    assert last == PutAside()


def test_being_put_aside_comes_before_failing() -> None:
    failure = Failure(
        ComfyUIUnavailableError("x"), HERE, executing=True, failures=2, crashes=2, elsewhere=True
    )
    assert decide(failure, attempts=3, crashes=3) == PutAside()


def test_workers_that_died_of_it_count_with_servers_that_did() -> None:
    earlier = [failed(WorkerDiedError), failed(WorkerDiedError, number=2)]
    failure = Failure(PromptLostError("x"), HERE, executing=True, earlier=earlier, crashes=2)
    assert decide(failure, crashes=3) == PutAside()
    assert isinstance(decide(replace(failure, executing=False), crashes=3), Retry)


def test_a_crash_more_than_allowed_is_too_many_whatever_failed_last() -> None:
    # The limit may have been lowered since.
    assert decide(Failure(PromptStalledError("x"), HERE, crashes=5)) == PutAside()
    assert decide(Failure(NodeFailedError("x"), HERE, crashes=5)) == Fail()


# Waiting


def test_the_backoff_doubles_up_to_its_cap() -> None:
    waits = []
    for number in range(8):
        earlier = [failed(ComfyUIUnavailableError)] * number
        failure = Failure(ComfyUIUnavailableError("x"), HERE, earlier=earlier)
        decision = decide(failure, attempts=99, jitter=1.0)
        assert isinstance(decision, Retry)
        waits.append(decision.seconds)
    assert waits == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]


@given(
    earlier=st.integers(0, 60),
    elapsed=st.floats(0, 100_000),
    jitter=st.floats(0, 1, exclude_max=True),
)
def test_the_wait_is_spread_over_half_of_itself_and_what_has_passed_is_taken_off(
    earlier: int, elapsed: float, jitter: float
) -> None:
    failure = Failure(
        ComfyUIUnavailableError("x"),
        HERE,
        elapsed=elapsed,
        earlier=[failed(ComfyUIUnavailableError)] * earlier,
    )
    decision = decide(failure, attempts=99, jitter=jitter)
    assert isinstance(decision, Retry)
    longest = min(CAP_SECONDS, BASE_SECONDS * 2**earlier)
    least = BASE_SECONDS / 4
    assert max(least, longest / 2 - elapsed) <= decision.seconds <= max(least, longest - elapsed)


def test_jobs_that_failed_together_do_not_return_together() -> None:
    failure = Failure(ComfyUIUnavailableError("x"), HERE)
    waits = {decide(failure, jitter=jitter).seconds for jitter in (0.0, 0.3, 0.9)}  # type: ignore[union-attr]
    assert len(waits) == 3
