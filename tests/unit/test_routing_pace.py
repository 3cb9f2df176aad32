"""How long jobs take with their models loaded and without, and what loading them is worth."""

import pytest

from workers.routing.pace import Pace


@pytest.fixture
def pace() -> Pace:
    return Pace()


def noted(pace: Pace, models: str, cold: float | None = None, warm: float | None = None) -> None:
    if cold is not None:
        pace.note(models, cold, cold=True)
    if warm is not None:
        pace.note(models, warm, cold=False)


def test_nobody_knows_at_first(pace: Pace) -> None:
    assert (pace.loading("a"), pace.worth("a")) == (None, None)


@pytest.mark.parametrize("seconds", [{"cold": 20.0}, {"warm": 2.0}])
def test_one_of_them_says_nothing(pace: Pace, seconds: dict[str, float]) -> None:
    noted(pace, "a", **seconds)
    assert (pace.loading("a"), pace.worth("a")) == (None, None)


def test_loading_is_what_a_cold_job_takes_longer(pace: Pace) -> None:
    noted(pace, "a", cold=22.0, warm=2.0)
    assert pace.loading("a") == 20.0
    # Meanwhile a warm server does eleven.
    assert pace.worth("a") == 11


def test_what_it_is_worth_is_rounded_up(pace: Pace) -> None:
    noted(pace, "a", cold=5.1, warm=2.0)
    assert pace.worth("a") == 3


def test_loading_never_takes_less_than_nothing(pace: Pace) -> None:
    noted(pace, "a", cold=1.0, warm=2.0)
    assert pace.loading("a") == 0.0
    assert pace.worth("a") == 1


def test_jobs_that_take_no_time_say_nothing(pace: Pace) -> None:
    noted(pace, "a", cold=1.0, warm=0.0)
    assert (pace.loading("a"), pace.worth("a")) == (None, None)


def test_the_newest_job_counts_for_a_part(pace: Pace) -> None:
    noted(pace, "a", cold=10.0, warm=1.0)
    noted(pace, "a", cold=20.0)
    assert pace.loading("a") == pytest.approx(10.0 + 0.3 * 10.0 - 1.0)
    noted(pace, "a", warm=2.0)
    assert pace.loading("a") == pytest.approx(13.0 - 1.3)


def test_of_models_that_are_not_known_it_is_guessed_by_the_newest(pace: Pace) -> None:
    noted(pace, "a", cold=11.0, warm=1.0)
    noted(pace, "b", cold=33.0, warm=3.0)
    assert pace.loading("c") == 30.0
    noted(pace, "a", warm=1.0)
    assert pace.loading("c") == 10.0
    # What is known by half is no guess.
    noted(pace, "d", cold=100.0)
    assert pace.loading("c") == pace.loading("d") == 10.0
    assert pace.loading("b") == 30.0


def test_jobs_without_models_are_not_noted(pace: Pace) -> None:
    noted(pace, "", cold=11.0, warm=1.0)
    assert pace.loading("a") is None


def test_the_oldest_are_forgotten(pace: Pace) -> None:
    noted(pace, "a", cold=11.0, warm=1.0)
    for number in range(64):
        noted(pace, f"{number}", cold=33.0, warm=3.0)
    assert pace.loading("a") == 30.0
    assert len(pace._seconds) == 64
