"""One attempt after another: those that ended with their worker, and their prompts."""

import time

import pytest

from tasks.errors import ComfyUIUnavailableError
from tests.unit.scene import (
    AFAR,
    AGAIN,
    HERE,
    NEIGHBOUR,
    NOW,
    RESULT,
    Scene,
    again,
    left,
    new,
    orphaned,
)
from workers.comfyui.model import PromptState
from workers.execution.job import Start, prompt_id
from workers.execution.placement import preferring
from workers.ledger import Record

pytestmark = pytest.mark.usefixtures("redis_is_asked_again_at_once")

# What ended with its worker


def crashed(scene: Scene) -> Record:
    """What is kept of a job that was taken over and begun."""
    assert scene.run() == RESULT
    return scene.ledger.last("save")[0]


def test_a_vanished_worker_is_an_attempt_that_ended() -> None:
    record = crashed(orphaned(AGAIN, since=NOW - 7.0, prompt=2))
    attempt = record.attempts[-1]
    assert (attempt.number, attempt.instance) == (2, HERE)
    assert attempt.prompt_id == prompt_id("job", 2)
    assert attempt.error == "WorkerDiedError: its worker vanished"
    assert 7.0 <= attempt.seconds < 30.0
    assert (record.number, record.crashes, record.failures) == (3, 1, 0)


def test_the_log_says_of_which_attempt_the_worker_vanished(
    caplog: pytest.LogCaptureFixture,
) -> None:
    orphaned().run()
    assert "attempt 1 on http://here ended with its worker" in caplog.text


def test_a_vanished_workers_job_waits_a_little_for_its_server() -> None:
    route = crashed(orphaned()).route
    assert route.prefer == HERE
    assert NOW < route.until <= preferring(HERE, NOW + 1.0).until


def test_a_clock_that_was_set_back_is_no_negative_time() -> None:
    assert crashed(orphaned(since=NOW + 3600)).attempts[-1].seconds == 0.0


def test_who_said_that_it_leaves_is_an_attempt_that_ended_and_no_crash() -> None:
    record = crashed(left(crashes=1))
    assert record.attempts[-1].error == "WorkerDiedError: its worker vanished"
    assert (record.number, record.crashes, record.failures) == (2, 1, 0)
    assert record.route.prefer == HERE


@pytest.mark.parametrize(
    ("state", "running", "crashes"),
    [
        pytest.param(PromptState.QUEUED, False, 0, id="waits"),
        pytest.param(PromptState.QUEUED, True, 1, id="runs"),
        pytest.param(PromptState.ENDED, False, 1, id="has-ended"),
        pytest.param(PromptState.UNKNOWN, False, 1, id="unknown"),
    ],
)
@pytest.mark.parametrize("place", [HERE, NEIGHBOUR])
def test_a_worker_did_not_die_of_what_waits_in_the_queue(
    place: str, state: PromptState, running: bool, crashes: int
) -> None:
    scene = orphaned(place=place, instance=place)
    server = scene.server if place == HERE else scene.neighbour
    server.state, server.running = state, running
    record = crashed(scene)
    assert record.crashes == crashes
    assert record.attempts[-1].error == "WorkerDiedError: its worker vanished"


def test_a_worker_may_have_died_of_what_cannot_be_asked_for() -> None:
    scene = orphaned(place=NEIGHBOUR, instance=NEIGHBOUR)
    scene.neighbour.state = ComfyUIUnavailableError("away")
    assert crashed(scene).crashes == 1
    assert crashed(orphaned(place=AFAR, instance="http://127.0.0.1:8188")).crashes == 1


# When it was enqueued


def test_when_a_job_was_enqueued_its_first_message_tells_for_all_attempts() -> None:
    scene = new()
    before = time.time()
    scene.run()
    assert before - 1.5 <= scene.job.enqueued_at <= time.time() - 1.5
    later = again(AGAIN.model_copy(update={"enqueued_at": 1234.5}))
    later.run()
    assert later.job.enqueued_at == 1234.5


# What is done about the prompt before


@pytest.mark.parametrize("state", [PromptState.QUEUED, PromptState.ENDED])
def test_a_prompt_that_this_server_knows_is_adopted(state: PromptState) -> None:
    scene = orphaned(client_id="the one before")
    scene.server.state = state
    assert scene.run() == RESULT
    assert scene.server.asked == [prompt_id("job", 1)]
    assert (scene.job.start, scene.job.number) == (Start.ADOPT, 2)
    assert scene.job.prompt_id == prompt_id("job", 1)
    # Only that client hears of it.
    assert scene.job.client_id == "the one before"
    assert 60.0 <= scene.job.age < 90.0
    assert scene.ledger.steps == ["save", "end"]
    assert scene.server.cancelled == []
    assert scene.ledger.struck_off == (HERE, [prompt_id("job", 1)])


def test_a_prompt_that_this_server_has_forgotten_is_submitted_anew() -> None:
    scene = orphaned(client_id="the one before")
    assert scene.run() == RESULT
    assert (scene.job.start, scene.job.number, scene.job.prompt) == (Start.SUBMIT, 2, 2)
    assert (scene.job.client_id, scene.job.age) == ("mine", 0.0)
    (saved,) = scene.ledger.last("save")
    # Before it is submitted: whoever comes next must find it.
    assert (saved.prompt, saved.place, saved.client_id) == (2, HERE, "mine")
    assert NOW <= saved.since < NOW + 30.0
    # As its first message asked, whatever this one asks.
    assert saved.folder == scene.job.folder == "first"
    assert saved.crashes == 1


def test_a_prompt_that_ended_on_a_server_within_reach_is_collected_there() -> None:
    scene = orphaned(place=NEIGHBOUR, instance=NEIGHBOUR)
    scene.neighbour.state = PromptState.ENDED
    assert scene.run() == RESULT
    assert (scene.job.start, scene.job.instance) == (Start.COLLECT, NEIGHBOUR)
    assert scene.job.prompt_id == prompt_id("job", 1)
    assert (scene.server.asked, scene.neighbour.cancelled) == ([], [])


@pytest.mark.parametrize("state", [PromptState.QUEUED, PromptState.UNKNOWN])
def test_a_prompt_that_still_runs_elsewhere_is_stopped_and_submitted_here(
    state: PromptState,
) -> None:
    scene = orphaned(place=NEIGHBOUR, instance=NEIGHBOUR)
    scene.neighbour.state = state
    assert scene.run() == RESULT
    # One that is unknown may be on its way.
    assert scene.neighbour.cancelled == [prompt_id("job", 1)]
    assert (scene.job.start, scene.job.instance, scene.job.prompt) == (Start.SUBMIT, HERE, 2)
    assert scene.ledger.steps == ["save", "end"]


def test_a_prompt_on_a_server_that_does_not_answer_is_ordered_to_stop() -> None:
    scene = orphaned(place=NEIGHBOUR, instance=NEIGHBOUR)
    scene.neighbour.state = ComfyUIUnavailableError("away")
    assert scene.run() == RESULT
    assert scene.ledger.last("stop") == (NEIGHBOUR, prompt_id("job", 1))
    assert scene.job.start is Start.SUBMIT


def test_a_prompt_on_another_hosts_loopback_is_ordered_to_stop() -> None:
    scene = orphaned(place=AFAR, instance="http://127.0.0.1:8188")
    assert scene.run() == RESULT
    assert scene.ledger.last("stop") == (AFAR, prompt_id("job", 1))
    assert scene.ledger.steps == ["stop", "save", "end"]


def test_a_spent_prompt_is_not_asked_for() -> None:
    scene = again(AGAIN.model_copy(update={"spent": True, "bypass": ("3",)}))
    scene.server.state = PromptState.ENDED
    assert scene.run() == RESULT
    assert (scene.server.asked, scene.job.start, scene.job.prompt) == ([], Start.SUBMIT, 2)
    assert scene.job.bypass == ("3",)
    assert not scene.ledger.last("save")[0].spent


def test_a_job_that_others_took_over_before_it_began_is_left_to_them() -> None:
    scene = again()
    scene.ledger.ours = False
    scene.postponed()
    assert scene.executor.jobs == []
    assert scene.ledger.steps == ["save"]


# Who was accused


ACCUSED = AGAIN.model_copy(update={"crashes": 2, "accused": True})


@pytest.mark.parametrize(
    ("place", "state", "crashes"),
    [
        pytest.param(HERE, PromptState.QUEUED, 1, id="goes-on"),
        pytest.param(HERE, PromptState.ENDED, 1, id="has-ended"),
        pytest.param(NEIGHBOUR, PromptState.ENDED, 1, id="has-ended-there"),
        pytest.param(HERE, PromptState.UNKNOWN, 2, id="is-forgotten"),
        pytest.param(NEIGHBOUR, PromptState.UNKNOWN, 2, id="is-forgotten-there"),
        pytest.param(NEIGHBOUR, PromptState.QUEUED, 2, id="is-stopped-there"),
        pytest.param(NEIGHBOUR, ComfyUIUnavailableError("away"), 2, id="cannot-be-asked-for"),
    ],
)
def test_a_server_that_still_has_the_prompt_did_not_die_of_it(
    place: str, state: PromptState | Exception, crashes: int
) -> None:
    scene = again(ACCUSED.model_copy(update={"place": place, "instance": place}))
    (scene.server if place == HERE else scene.neighbour).state = state
    assert scene.run() == RESULT
    (record,) = scene.ledger.last("save")
    # Acquitted or not, it is judged once.
    assert (record.crashes, record.accused) == (crashes, False)


def test_who_is_not_accused_is_not_acquitted() -> None:
    scene = again(ACCUSED.model_copy(update={"accused": False}))
    scene.server.state = PromptState.QUEUED
    assert scene.run() == RESULT
    assert scene.ledger.last("save")[0].crashes == 2
