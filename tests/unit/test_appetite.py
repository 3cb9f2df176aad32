"""How much work is taken ahead: decisions about numbers."""

import pytest

from workers.execution.appetite import (
    COVER_SECONDS,
    MOST_AHEAD,
    Appetite,
    appetite,
    jobs_ahead,
)

NONE, AHEAD, HUNGER = Appetite.NONE, Appetite.AHEAD, Appetite.HUNGER


@pytest.mark.parametrize(
    ("unrendered", "ahead", "wanted"),
    [
        (0, 1, HUNGER),
        (1, 1, AHEAD),
        (2, 1, NONE),
        (8, 1, NONE),
        (0, 3, HUNGER),
        (1, 3, AHEAD),
        (3, 3, AHEAD),
        (4, 3, NONE),
        # A job may be stored a moment before its message counts.
        (-1, 1, HUNGER),
    ],
)
def test_one_executes_and_so_many_wait(unrendered: int, ahead: int, wanted: Appetite) -> None:
    assert appetite(unrendered, ahead=ahead) is wanted


@pytest.mark.parametrize(
    ("unrendered", "wanted"), [(-1, AHEAD), (0, AHEAD), (1, AHEAD), (2, NONE), (3, NONE)]
)
def test_who_is_polite_is_never_hungry_and_wants_no_more_than_others(
    unrendered: int, wanted: Appetite
) -> None:
    assert appetite(unrendered, ahead=1, polite=True) is wanted


@pytest.mark.parametrize(
    ("seconds", "ahead"),
    [(None, 1), (3600.0, 1), (1.0, 1), (COVER_SECONDS, 1), (0.24, 2), (0.125, 2), (0.12, 3)],
)
def test_what_waits_keeps_the_gpu_busy_for_long_enough(seconds: float | None, ahead: int) -> None:
    assert jobs_ahead(seconds) == ahead
    assert seconds is None or ahead * seconds >= COVER_SECONDS


@pytest.mark.parametrize("seconds", [0.01, 1e-9, 1e-300])
def test_no_more_wait_than_that(seconds: float) -> None:
    assert jobs_ahead(seconds) == MOST_AHEAD


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("inf")])
def test_times_that_mean_nothing_are_as_good_as_none(seconds: float) -> None:
    assert jobs_ahead(seconds) == 1
