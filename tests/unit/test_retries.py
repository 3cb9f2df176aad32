"""What follows an attempt that failed: another one, the dead letters, or the end."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tasks.errors import (
    BrokerUnavailableError,
    ComfyUIUnavailableError,
    InternalError,
    JobError,
    JobTimeoutError,
    NodeFailedError,
    OutOfMemoryError,
    OutputMissingError,
    PoisonedJobError,
    StorageDeniedError,
    StorageUnavailableError,
)
from tests.unit.scene import (
    AFAR,
    AGAIN,
    HERE,
    NEIGHBOUR,
    NOW,
    ORDER,
    REQUEST,
    RESULT,
    Scene,
    again,
    left,
    new,
    orphaned,
    refusing,
    routed,
)
from workers.comfyui.model import PromptState
from workers.execution.job import AttemptFailed, Start, prompt_id
from workers.ledger import Record, Route
from workers.ledger.outcomes import JobFailed, failure_from
from workers.observing import AttemptEnded


def test_a_failed_attempt_is_kept_and_the_job_released_for_another_one() -> None:
    scene = new()
    error = ComfyUIUnavailableError("it is down")
    scene.executor.end = AttemptFailed(error)
    later = scene.postponed()
    assert later.error is error
    (record, pause) = scene.ledger.last("release")
    assert pause == later.seconds > 0
    (attempt,) = record.attempts
    assert (attempt.number, attempt.instance) == (1, HERE)
    assert attempt.error == "ComfyUIUnavailableError: it is down"
    assert (record.failures, record.crashes, record.spent) == (1, 0, False)
    assert record.route == Route()
    assert scene.ledger.steps == ["release"]


def test_out_of_memory_frees_memory_and_comes_again_at_once() -> None:
    scene = new()
    scene.executor.end = AttemptFailed(OutOfMemoryError("x"))
    assert scene.postponed().seconds == 0.0
    (record, _) = scene.ledger.last("release")
    assert scene.server.freed == 1
    assert (record.spent, record.route.prefer) == (True, HERE)


def test_a_missing_output_has_its_node_executed_again() -> None:
    scene = new()
    scene.executor.end = AttemptFailed(OutputMissingError("x"), rendered=True, nodes=("9", "12"))
    scene.postponed()
    (record, _) = scene.ledger.last("release")
    # Where one file is gone others may be, too: there is but one such attempt.
    assert (record.spent, record.bypass) == (True, ("9", "12"))


def test_nodes_are_executed_again_for_a_missing_output_only() -> None:
    scene = new()
    scene.executor.end = AttemptFailed(StorageUnavailableError("x"), rendered=True, nodes=("9",))
    scene.postponed()
    assert scene.ledger.last("release")[0].bypass == ()


def test_a_server_that_died_of_the_job_counts_as_a_crash() -> None:
    scene = new()
    scene.executor.end = AttemptFailed(ComfyUIUnavailableError("x"), executing=True)
    scene.postponed()
    (record, _) = scene.ledger.last("release")
    assert (record.crashes, record.accused) == (1, True)


@pytest.mark.parametrize(
    ("error", "crashes", "accused"),
    [(ComfyUIUnavailableError("x"), 2, True), (StorageUnavailableError("x"), 1, False)],
)
def test_only_the_last_attempt_is_accused(error: JobError, crashes: int, accused: bool) -> None:
    scene = again(AGAIN.model_copy(update={"crashes": 1}))
    scene.executor.end = AttemptFailed(error, executing=True)
    scene.postponed()
    (record, _) = scene.ledger.last("release")
    assert (record.crashes, record.accused) == (crashes, accused)


@pytest.mark.parametrize("what", ["the server", "the store"])
def test_a_job_of_which_nobody_could_find_out_stays_accused(what: str) -> None:
    scene = again(AGAIN.model_copy(update={"crashes": 2, "accused": True}))
    if what == "the server":
        scene.server.state = ComfyUIUnavailableError("away")
    else:
        scene.executor.manifest = StorageUnavailableError("away")
    scene.postponed()
    kept = scene.ledger.last("release")[0]
    # The attempt that did not begin says nothing about the one before.
    assert (kept.crashes, kept.accused) == (2, True)


def test_what_fails_before_an_attempt_has_begun_counts_for_nothing() -> None:
    scene = again()
    scene.server.state = ComfyUIUnavailableError("away")
    scene.postponed()
    (record, _) = scene.ledger.last("release")
    assert (len(record.attempts), record.failures) == (len(AGAIN.attempts) + 1, AGAIN.failures)


def test_a_failure_of_the_store_counts_for_nothing_and_keeps_the_prompt() -> None:
    scene = new()
    scene.executor.end = AttemptFailed(StorageUnavailableError("x"), rendered=True)
    scene.postponed()
    (record, _) = scene.ledger.last("release")
    assert (record.failures, record.spent, record.route.prefer) == (0, False, HERE)


@pytest.mark.parametrize(
    ("error", "failures"), [(NodeFailedError("x"), 0), (ComfyUIUnavailableError("x"), 2)]
)
def test_a_job_fails_with_its_error_and_all_its_attempts(error: JobError, failures: int) -> None:
    scene = again(AGAIN.model_copy(update={"failures": failures}))
    scene.executor.end = AttemptFailed(error)
    failed = scene.failed()
    assert failed.error is error
    assert [one.number for one in failed.attempts] == [1, 2]
    (outcome, detail) = scene.ledger.last("end")
    assert outcome == "failed"
    assert failure_from(detail).attempts == failed.attempts


def test_the_prompt_of_a_job_that_fails_executes_for_nobody() -> None:
    scene = again()
    scene.max_attempts = 1
    scene.server.state = PromptState.QUEUED
    scene.executor.end = AttemptFailed(ComfyUIUnavailableError("x"))
    scene.failed()
    assert scene.server.cancelled == [prompt_id("job", 1)]


@pytest.mark.parametrize("error", [NodeFailedError("x"), JobTimeoutError("x")], ids=str)
def test_a_prompt_that_is_over_is_not_stopped(error: JobError) -> None:
    scene = again()
    scene.executor.end = AttemptFailed(error)
    scene.failed()
    assert scene.server.cancelled == []


@pytest.mark.parametrize(
    ("changes", "here", "there", "ordered"),
    [
        ({}, 1, 0, 0),
        ({"place": NEIGHBOUR, "instance": NEIGHBOUR}, 0, 1, 0),
        ({"place": AFAR, "instance": "http://127.0.0.1:8188"}, 0, 0, 1),
        ({"spent": True}, 0, 0, 0),
    ],
    ids=["here", "there", "afar", "spent"],
)
def test_the_prompt_before_is_stopped_when_a_job_fails_before_its_next_attempt(
    changes: dict[str, Any], here: int, there: int, ordered: int
) -> None:
    scene = again(AGAIN.model_copy(update={"failures": 2, **changes}))
    scene.executor.manifest = StorageDeniedError("no")
    scene.failed()
    prompt = prompt_id("job", 1)
    assert scene.server.cancelled == [prompt] * here
    assert scene.neighbour.cancelled == [prompt] * there
    # Its end comes last.
    assert scene.ledger.steps == ["stop"] * ordered + ["end"]


def test_a_job_fails_though_nobody_can_be_told_to_stop_its_prompt() -> None:
    scene = again(AGAIN.model_copy(update={"failures": 2, "place": AFAR}))
    scene.executor.manifest = StorageDeniedError("no")
    scene.ledger.order_stop = refusing  # type: ignore[method-assign]
    assert type(scene.failed().error) is StorageDeniedError
    assert scene.ledger.steps == ["end"]


# An error before the attempt has begun says nothing about the prompt before


BEFORE = {
    "the manifest cannot be looked for": StorageUnavailableError("away"),
    "nobody knows who else is there": BrokerUnavailableError("away"),
}


def fails_before_it_begins(why: str, record: Record) -> Record:
    scene = routed(prefer=NEIGHBOUR)
    scene.ledger.verdict = replace(
        scene.ledger.verdict,
        record=record.model_copy(update={"route": Route(prefer=NEIGHBOUR, until=NOW + 60.0)}),
    )
    if "manifest" in why:
        scene.ledger.live = {HERE}
        scene.executor.manifest = BEFORE[why]
    else:
        live = scene.ledger.live_places
        errors = iter([BEFORE[why]])

        def away() -> frozenset[str]:
            if error := next(errors, None):
                raise error
            return live()

        scene.ledger.live_places = away  # type: ignore[method-assign]
    scene.postponed()
    assert scene.executor.jobs == []
    (kept, _) = scene.ledger.last("release")
    return kept


@pytest.mark.parametrize("why", BEFORE)
def test_a_prompt_that_may_be_adopted_may_still_be(why: str) -> None:
    kept = fails_before_it_begins(why, AGAIN)
    assert (kept.spent, kept.prompt, kept.failures) == (False, 1, 0)


@pytest.mark.parametrize("why", BEFORE)
def test_a_prompt_that_is_spent_stays_spent(why: str) -> None:
    # Else it is adopted, and its own failure comes once more.
    kept = fails_before_it_begins(why, AGAIN.model_copy(update={"spent": True, "bypass": ("9",)}))
    assert (kept.spent, kept.bypass) == (True, ("9",))


def test_the_cache_stays_bypassed_over_other_failures() -> None:
    scene = again(AGAIN.model_copy(update={"spent": True, "bypass": ("9",)}))
    scene.executor.end = AttemptFailed(ComfyUIUnavailableError("x"))
    scene.postponed()
    assert scene.ledger.last("release")[0].bypass == ("9",)


# Poison


def test_a_job_that_took_too_many_down_is_put_aside_untried() -> None:
    scene = orphaned(AGAIN, crashes=2)
    failed = scene.failed()
    assert type(failed.error) is PoisonedJobError
    assert "took its worker or its ComfyUI down 3 times" in failed.error.message
    assert "comfyfleet dead show job" in failed.error.message
    assert scene.executor.jobs == []
    # In one step: a worker that dies in between must not lose the request.
    (outcome, detail, letter) = scene.ledger.last("end")
    assert outcome == "failed"
    assert type(failure_from(detail).error) is PoisonedJobError
    assert letter.request == {"workflow": REQUEST.workflow, "metadata": REQUEST.metadata}
    assert (letter.job_id, letter.priority, letter.is_signed) == ("job", 3, False)
    assert letter.error == "WorkerDiedError: its worker vanished"
    assert [one.number for one in letter.attempts] == [1, 2]
    assert letter.attempts == failed.attempts


def test_a_replay_of_a_signed_job_is_known_to_need_a_signature() -> None:
    scene = orphaned(AGAIN, crashes=2)
    with pytest.raises(JobFailed):
        scene.run(replace(ORDER, is_signed=True))
    assert scene.ledger.last("end")[2].is_signed


@pytest.mark.parametrize(
    "place", [pytest.param(HERE, id="here"), pytest.param(NEIGHBOUR, id="there")]
)
@pytest.mark.parametrize(
    "state", [PromptState.QUEUED, PromptState.UNKNOWN, ComfyUIUnavailableError("away")], ids=repr
)
def test_the_prompt_of_a_job_that_is_put_aside_is_stopped(
    place: str, state: PromptState | Exception
) -> None:
    scene = orphaned(AGAIN, crashes=2, place=place, instance=place)
    (scene.server if place == HERE else scene.neighbour).state = state
    assert type(scene.failed().error) is PoisonedJobError
    cancelled = scene.server.cancelled, scene.neighbour.cancelled
    stopped = [prompt_id("job", 1)]
    assert cancelled == ((stopped, []) if place == HERE else ([], stopped))
    assert scene.ledger.steps == ["end"]


def test_a_spent_prompt_of_a_job_that_is_put_aside_is_not_stopped() -> None:
    scene = orphaned(AGAIN, crashes=2, spent=True)
    scene.server.state = PromptState.ENDED
    assert type(scene.failed().error) is PoisonedJobError
    assert (scene.server.asked, scene.server.cancelled) == ([], [])


@pytest.mark.parametrize(
    ("place", "start"), [(HERE, Start.ADOPT), (NEIGHBOUR, Start.COLLECT)], ids=["here", "there"]
)
def test_what_a_poisoned_job_has_rendered_in_spite_of_all_is_collected(
    place: str, start: Start
) -> None:
    scene = orphaned(AGAIN, crashes=2, place=place, instance=place)
    (scene.server if place == HERE else scene.neighbour).state = PromptState.ENDED
    assert scene.run() == RESULT
    assert scene.job.start is start
    assert scene.ledger.last("save")[0].crashes == 3
    assert scene.ledger.last("end") == ("succeeded", "job/manifest.json")


def test_a_poisoned_job_out_of_reach_is_put_aside() -> None:
    scene = orphaned(AGAIN, crashes=2, place=AFAR, instance="http://127.0.0.1:8188")
    assert type(scene.failed().error) is PoisonedJobError
    assert scene.ledger.steps == ["stop", "end"]


@pytest.mark.parametrize("orphans", [left, again])
def test_a_job_of_as_many_crashes_is_put_aside_whoever_had_it_last(
    orphans: Callable[[Record], Scene],
) -> None:
    # The limit may have been lowered since.
    scene = orphans(AGAIN.model_copy(update={"crashes": 3}))
    assert type(scene.failed().error) is PoisonedJobError


def test_a_job_that_waited_when_its_worker_died_is_not_put_aside() -> None:
    scene = orphaned(AGAIN, crashes=2)
    scene.server.state, scene.server.running = PromptState.QUEUED, False
    assert scene.run() == RESULT


def test_the_last_server_that_dies_of_a_job_puts_it_aside() -> None:
    scene = again(AGAIN.model_copy(update={"crashes": 2}))
    scene.executor.end = AttemptFailed(ComfyUIUnavailableError("it died"), executing=True)
    assert type(scene.failed().error) is PoisonedJobError
    (_, _, letter) = scene.ledger.last("end")
    assert letter.error == "ComfyUIUnavailableError: it died"


def test_a_poisoned_job_that_is_committed_after_all_succeeds() -> None:
    scene = orphaned(crashes=2)
    scene.executor.manifest = RESULT
    assert scene.run() == RESULT


def test_a_crash_less_is_tried() -> None:
    assert orphaned(crashes=1).run() == RESULT


# A fault of ours


def test_a_fault_of_ours_fails_the_job_with_a_sentence_of_ours_and_frees_the_gpu() -> None:
    scene = again()
    scene.executor.end = KeyError("secret")
    failed = scene.failed()
    assert type(failed.error) is InternalError
    assert failed.error.message == (
        "comfyfleet itself failed with KeyError; the worker's log says where"
    )
    assert [one.number for one in failed.attempts] == [1, 2]
    assert scene.server.cancelled == [prompt_id("job", 2)]
    assert scene.ledger.last("end")[0] == "failed"
    assert AttemptEnded("job", 2, failed.error) in scene.events
