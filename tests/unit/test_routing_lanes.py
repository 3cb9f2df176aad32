"""The names of lanes, and what the broker is told of them."""

import json
import re

import pytest

from workers.routing.lanes import Lane


def test_the_same_models_and_servers_are_the_same_lane() -> None:
    lane = Lane.of("m", ["b", "a"])
    assert lane == Lane.of("m", {"a", "b"})
    assert lane.id == Lane.of("m", ("a", "b")).id
    # What it is worth changes as jobs are done.
    assert lane.id == Lane.of("m", ["a", "b"], worth=7).id


@pytest.mark.parametrize(
    "other", [Lane.of("", ["a", "b"]), Lane.of("n", ["a", "b"]), Lane.of("m", ["a"])]
)
def test_other_models_or_servers_are_another_lane(other: Lane) -> None:
    assert other.id != Lane.of("m", ["a", "b"]).id


def test_a_name_is_fit_for_a_key() -> None:
    assert re.fullmatch(r"[0-9a-f]{16}", Lane.of("m", ["a"]).id)


def test_the_broker_is_told_all_that_it_decides_by() -> None:
    told = json.loads(Lane.of("m", ["b", "a"], worth=3).dumped())
    assert told == {"models": "m", "unable": ["a", "b"], "worth": 3}
    assert json.loads(Lane.of("", ()).dumped()) == {"models": "", "unable": [], "worth": 2}
