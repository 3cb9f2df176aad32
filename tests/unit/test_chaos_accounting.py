"""The account of a soak: each way in which a job can have gone wrong is found."""

from dataclasses import replace
from typing import Any

import pytest

from tests.chaos.accounting import (
    Departure,
    Ending,
    Evidence,
    Manifest,
    PickUp,
    Run,
    Sign,
    Span,
    Stored,
    account,
)

RESULT: dict[str, Any] = {
    "prompt_id": "p1",
    "instance": "http://a",
    "outputs": [{"key": "j/1/2/0-x.png", "size_bytes": 3, "sha256": "abc"}],
}
SUCCESS = Ending("SUCCESS", RESULT, 110.0)
REVOKED = Ending("REVOKED", {"exc_type": "TaskRevokedError", "exc_message": ["revoked"]}, 110.0)
POISONED = Ending(
    "FAILURE", {"exc_type": "PoisonedJobError", "exc_message": ["killed three"]}, 110.0
)
FAILED = Ending("FAILURE", {"exc_type": "NodeFailedError", "exc_message": ["bars"]}, 110.0)
MANIFEST = Manifest("j/manifest.json", "j", 109.0, RESULT)

# One job, done in one execution of ten seconds.
GOOD = Evidence(
    accepted={"j"},
    endings={"j": [SUCCESS]},
    manifests=[MANIFEST],
    objects={"j/1/2/0-x.png": Stored(3, "abc"), "j/manifest.json": Stored(9, "d")},
    runs=[Run(0, "p1", 98.0, 108.0)],
    prompts={"p1": "j", "p2": "j"},
)


def without_manifest(ending: Ending) -> dict[str, Any]:
    return {"endings": {"j": [ending]}, "manifests": []}


def test_good_run_is_good() -> None:
    report = account(GOOD)
    assert report.is_good
    assert (report.jobs, report.states, report.executions) == (1, {"SUCCESS": 1}, 1)
    assert (report.gpu_seconds, report.extra_seconds, report.destroyed_seconds) == (10, 0, 0)
    assert (report.lost, report.twice, report.wrong, report.orphans) == ({}, {}, {}, [])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"endings": {}}, "has not ended"),
        ({"manifests": []}, "no readable manifest"),
        ({"manifests": [replace(MANIFEST, content=None)]}, "no readable manifest"),
        ({"objects": {}}, "missing or spoilt: j/1/2/0-x.png"),
        ({"objects": {"j/1/2/0-x.png": Stored(4, "abc")}}, "missing or spoilt"),
        ({"objects": {"j/1/2/0-x.png": Stored(3, "abd")}}, "missing or spoilt"),
        ({"manifests": [replace(MANIFEST, content={**RESULT, "outputs": []})]}, "spoilt: all"),
    ],
)
def test_lost(changes: dict[str, Any], told: str) -> None:
    report = account(replace(GOOD, **changes))
    assert told in report.lost["j"]
    assert not report.is_good


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"manifests": [MANIFEST, replace(MANIFEST, key="k/manifest.json")]}, "2 manifests"),
        ({"endings": {"j": [SUCCESS, FAILED]}}, "ended as SUCCESS, then as FAILURE"),
        ({"manifests": [replace(MANIFEST, content={**RESULT, "prompt_id": "p2"})]}, "differ"),
    ],
)
def test_committed_twice(changes: dict[str, Any], told: str) -> None:
    report = account(replace(GOOD, **changes))
    assert told in report.twice["j"]
    assert not report.is_good


def test_presigned_urls_make_no_second_result() -> None:
    outputs = [{**RESULT["outputs"][0], "url": "https://signed"}]
    ending = replace(SUCCESS, result={**RESULT, "outputs": outputs})
    assert account(replace(GOOD, endings={"j": [ending]})).twice == {}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (without_manifest(FAILED), "ended as FAILURE NodeFailedError: bars"),
        (without_manifest(REVOKED), "ended as REVOKED"),
        ({"dead_letters": {"j"}, **without_manifest(POISONED)}, "is no poison"),
        ({"endings": {"j": [REVOKED]}, "cancelled": {"j": 90.0}}, "has a manifest, and ended as"),
        ({"poison": {"j"}}, "is poison, is not dead, ended as SUCCESS"),
        ({"poison": {"j"}, **without_manifest(POISONED)}, "is poison, is not dead"),
        ({"cancelled": {"j": 90.0}}, "committed after it had been cancelled"),
        ({"cancelled": {"j": 90.0}, **without_manifest(FAILED)}, "ended as FAILURE"),
    ],
)
def test_wrong_ends_are_told_and_are_not_losses(changes: dict[str, Any], told: str) -> None:
    report = account(replace(GOOD, **changes))
    assert told in report.wrong["j"]
    assert report.lost == report.twice == {}
    assert not report.is_good


@pytest.mark.parametrize(
    "changes",
    [
        {"poison": {"j"}, "dead_letters": {"j"}, **without_manifest(POISONED)},
        {"poison": {"j"}, "cancelled": {"j": 90.0}, **without_manifest(REVOKED)},
        {"cancelled": {"j": 90.0}, **without_manifest(REVOKED)},
        {"cancelled": {"j": 108.5}},
    ],
)
def test_ends_that_are_as_they_should_be(changes: dict[str, Any]) -> None:
    assert account(replace(GOOD, **changes)).wrong == {}


def test_execution_beyond_the_one_of_the_result_is_waste_aborted_or_not() -> None:
    aborted, again = Run(1, "p1", 90.0, 92.0), Run(0, "p2", 112.0, 118.0)
    report = account(replace(GOOD, runs=[aborted, *GOOD.runs, again]))
    assert (report.gpu_seconds, report.extra_seconds) == (18, 8)
    assert report.waste == pytest.approx(8 / 18)
    assert not report.is_good


def test_execution_of_a_prompt_that_is_nobodys_is_waste() -> None:
    report = account(replace(GOOD, runs=[*GOOD.runs, Run(1, "strange", 0.0, 1.0)]))
    assert report.extra_seconds == 1


def test_what_died_with_its_server_is_no_waste() -> None:
    killed = Run(1, "p1", 80.0, None)
    # Its history was forgotten before anybody had read it.
    unread = Run(1, "p1", 86.0, 90.0)
    deaths = [Span(1, 84.0, 85.0), Span(1, 91.0, 92.0)]
    report = account(replace(GOOD, runs=[killed, unread, *GOOD.runs], deaths=deaths))
    assert (report.destroyed_seconds, report.extra_seconds, report.gpu_seconds) == (8, 0, 18)


def test_death_of_another_server_or_at_another_time_explains_nothing() -> None:
    twice = [Run(1, "p1", 80.0, 84.0), *GOOD.runs]
    deaths = [Span(0, 85.0, 86.0), Span(1, 70.0, 71.0), Span(1, 99.0, 100.0)]
    assert account(replace(GOOD, runs=twice, deaths=deaths)).extra_seconds == 4


def test_hung_server_executes_nothing() -> None:
    pauses = [Span(0, 100.0, 104.0), Span(0, 107.0, 200.0), Span(1, 98.0, 108.0)]
    assert account(replace(GOOD, pauses=pauses)).gpu_seconds == 5


LEFT = replace(GOOD, departures=[Departure(1, 91.0, 92.0)], signs=[Sign("j", 1, 89.0, 90.0)])


def test_pick_up_is_the_first_sign_of_anybody_else() -> None:
    assert account(LEFT).pick_ups == [PickUp("j", 7.0)], "the execution on another server"
    of_its_own = replace(LEFT, runs=[replace(run, server=1) for run in GOOD.runs])
    assert account(of_its_own).pick_ups == [PickUp("j", 19.0)], "the job's end"
    its_own_last = Sign("j", 1, 91.5, 93.0)
    successor = Sign("j", 1, 96.0, 97.0)
    signs = [*LEFT.signs, its_own_last, successor]
    assert account(replace(LEFT, signs=signs)).pick_ups == [PickUp("j", 6.0)]


def test_pick_ups_while_the_broker_was_away_are_told_apart() -> None:
    signs = [*LEFT.signs, Sign("k", 1, 89.0, 90.0), Sign("k", 0, 93.0, 94.0)]
    evidence = replace(LEFT, signs=signs, broker_ends=[95.0])
    assert account(evidence).pick_ups == [PickUp("j", 7.0, broker_ended=True), PickUp("k", 3.0)]
    assert account(evidence).worst_pick_up == 7
    assert account(evidence).worst_pick_up_with_broker == 3


@pytest.mark.parametrize(
    "changes",
    [
        {"departures": [Departure(1, 88.0, 88.5)]},
        {"departures": [Departure(1, 111.0, 112.0)]},
        {"departures": [Departure(2, 91.0, 92.0)]},
        {"signs": [Sign("j", 1, 88.0, 89.0), Sign("j", 0, 89.0, 90.0)]},
    ],
    ids=["before it began", "after it ended", "of another", "that had given it away"],
)
def test_departure_of_a_worker_that_does_not_have_the_job(changes: dict[str, Any]) -> None:
    assert account(replace(LEFT, **changes)).pick_ups == []


def test_only_the_first_departure_counts_of_those_that_no_sign_separates() -> None:
    departures = [*LEFT.departures, Departure(1, 94.0, 94.5)]
    assert account(replace(LEFT, departures=departures)).pick_ups == [PickUp("j", 7.0)]


def test_slow_pick_up_is_not_good() -> None:
    changes = {"departures": [Departure(1, 50.0, 51.0)], "signs": [Sign("j", 1, 48.0, 49.0)]}
    report = account(replace(LEFT, **changes))
    assert report.worst_pick_up == 48
    assert not report.is_good


def test_a_worker_that_ended_by_itself_is_not_good() -> None:
    assert not account(replace(GOOD, crashes=1)).is_good


def test_objects_that_no_manifest_names_are_orphans() -> None:
    objects = {**GOOD.objects, "j/2/2/0-x.png": Stored(3, "abc")}
    assert account(replace(GOOD, objects=objects)).orphans == ["j/2/2/0-x.png"]
