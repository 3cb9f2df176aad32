"""What is kept of a job: it survives the ledger, and versions of us that know more or less."""

import json

import pytest
from pydantic import ValidationError

from tasks.result import Attempt
from workers.ledger import Record, Route
from workers.ledger.ledger import _record

ATTEMPT = Attempt(number=1, instance="http://a", prompt_id="p", error="X: x", seconds=1.5)
RECORD = Record(
    attempts=(ATTEMPT,),
    place="http://a on b",
    instance="http://a",
    client_id="c",
    prompt=1,
    folder="shots/job",
    since=12.5,
    spent=True,
    failures=1,
    crashes=2,
    bypass=("3",),
    route=Route(prefer="http://a on b", avoid=("http://c",), until=99.5),
)


def test_it_comes_back_as_it_was() -> None:
    assert Record.model_validate_json(RECORD.model_dump_json()) == RECORD


def test_the_current_attempt_comes_after_those_that_ended() -> None:
    assert RECORD.number == 2
    assert Record(place="p", instance="i", client_id="c", folder="f").number == 1


def test_a_new_job_has_nothing_behind_it_and_may_run_anywhere() -> None:
    new = Record(place="p", instance="i", client_id="c", folder="f")
    assert (new.attempts, new.prompt, new.failures, new.crashes) == ((), 1, 0, 0)
    assert (new.since, new.spent, new.bypass) == (0.0, False, ())
    assert new.route == Route(prefer=None, avoid=(), until=0.0)


def test_what_a_later_version_wrote_is_read_as_far_as_it_is_known() -> None:
    kept = RECORD.model_dump(mode="json")
    attempts = [{**kept["attempts"][0], "gpu": "y"}]
    later = {**kept, "colour": "red", "route": {**kept["route"], "via": "x"}, "attempts": attempts}
    assert _record(json.dumps(later)) == RECORD


def test_it_is_a_value() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        RECORD.spent = False  # type: ignore[misc]
