"""What is known of an attempt that failed."""

from contextlib import suppress
from dataclasses import replace

import pytest

from tasks.errors import (
    ComfyUIAccessDeniedError,
    ComfyUIUnavailableError,
    InputUnavailableError,
    OutputMissingError,
)
from tests.unit.one_attempt import FAILURE, SUCCESS, Scene, images, unreachable
from workers.comfyui import Notifications
from workers.comfyui.model import PromptState
from workers.execution import waiting
from workers.execution.job import AttemptFailed, Start


def test_what_rendered_and_cannot_be_fetched_has_rendered(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.execution.patience.OUTAGE_PATIENCE", 0.0)

    def gone() -> None:
        raise ComfyUIUnavailableError("gone")

    scene.server.on_view = gone
    scene.server.steps = [scene.server.run, scene.server.end]
    failed = scene.failed()
    assert type(failed.error) is ComfyUIUnavailableError
    # It cannot have died of what it had ended.
    assert (failed.rendered, failed.executing) == (True, False)


@pytest.mark.parametrize("all_of_them", [False, True])
def test_a_job_that_a_server_refuses_has_only_waited_if_it_refuses_all(
    scene: Scene, all_of_them: bool
) -> None:
    def refuse() -> None:
        scene.server.vanish()
        raise ComfyUIUnavailableError("502")

    scene.server.on_submit = refuse
    scene.takes_no_prompts = all_of_them
    failed = scene.failed()
    assert (failed.waited, failed.executing) == (all_of_them, False)
    assert (scene.refused, scene.accepted) == (["job"], [])


def test_a_prompt_that_was_taken_is_noted_though_its_answer_was_lost(scene: Scene) -> None:
    def lose() -> None:
        raise ComfyUIUnavailableError("cut")

    scene.server.on_submit = lose
    with scene.holding():
        assert scene.attempt().outputs
    assert (scene.refused, scene.accepted) == ([], [None])


def test_a_prompt_whose_files_the_server_does_not_show_has_not_only_waited(scene: Scene) -> None:
    def deny() -> None:
        raise ComfyUIAccessDeniedError("403")

    scene.server.state = PromptState.ENDED
    scene.server.on_view = deny
    with scene.holding(), pytest.raises(AttemptFailed) as caught:
        scene.attempt(Start.ADOPT)
    assert (caught.value.rendered, caught.value.waited) == (True, False)


def test_a_job_for_which_no_server_was_there_has_waited(scene: Scene) -> None:
    scene.server.on_submit = unreachable
    scene.server.state_of = scene.server.queue = unreachable  # type: ignore[method-assign]
    failed = scene.failed()
    assert (failed.waited, failed.executing) == (True, False)


def test_so_has_one_whose_inputs_could_not_be_placed(scene: Scene) -> None:
    scene.on_place = unreachable
    assert not scene.failed().waited
    scene.server.queue = unreachable  # type: ignore[method-assign]
    assert scene.failed().waited


def test_the_server_has_no_part_in_an_input_that_is_away(scene: Scene) -> None:
    def miss() -> None:
        raise InputUnavailableError("503")

    scene.on_place = miss
    scene.server.queue = unreachable  # type: ignore[method-assign]
    failed = scene.failed()
    assert type(failed.error) is InputUnavailableError
    assert (failed.waited, failed.executing, scene.suspected) == (False, False, 0)


def test_a_server_that_vanishes_with_the_submission_may_have_died_of_it(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The websocket's end is heard a moment after the request's.
    waited: list[float] = []
    monkeypatch.setattr(Notifications, "connected", property(lambda _: not waited))
    monkeypatch.setattr(Notifications, "held_since", lambda *_: not waited)
    monkeypatch.setattr(Notifications, "wait_cut", lambda _, seconds: waited.append(seconds))
    scene.server.on_submit = unreachable
    scene.server.state_of = scene.server.queue = unreachable  # type: ignore[method-assign]
    failed = scene.failed()
    assert (failed.waited, failed.executing) == (False, True)


def test_a_job_that_waited_in_the_queue_of_a_server_that_went_away_has_waited(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "OUTAGE_PATIENCE", -1.0)
    monkeypatch.setattr(Notifications, "held_since", lambda *_: True)

    def vanish() -> None:
        scene.server.history = unreachable  # type: ignore[method-assign]

    scene.server.steps = [vanish]
    failed = scene.failed()
    assert type(failed.error) is ComfyUIUnavailableError
    assert (failed.waited, failed.executing) == (True, False)


def test_nobody_asks_whether_a_server_is_there_that_has_said_no(scene: Scene) -> None:
    scene.server.entry = FAILURE
    assert not scene.failed().waited


def test_what_failed_has_not_rendered(scene: Scene) -> None:
    scene.server.entry = {**FAILURE, "outputs": {"9": images("a")}}
    failed = scene.failed()
    assert (failed.rendered, failed.nodes) == (False, ())


def test_all_nodes_with_files_are_known_when_one_file_is_gone(scene: Scene) -> None:
    def gone() -> None:
        raise OutputMissingError("gone")

    scene.server.on_view = gone
    outputs = {"9": images("a", "b"), "12": {"text": ["a"]}, "10": images("c")}
    scene.server.entry = {**SUCCESS, "outputs": outputs}
    failed = scene.failed()
    assert type(failed.error) is OutputMissingError
    assert failed.rendered
    assert sorted(failed.nodes) == ["10", "9"]


def test_a_server_that_is_not_ones_own_is_not_suspected(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "OUTAGE_PATIENCE", -1.0)
    scene.there.queue = scene.there.history = unreachable  # type: ignore[method-assign]
    with scene.holding(), pytest.raises(AttemptFailed) as caught:
        scene.attempt(Start.COLLECT)
    assert type(caught.value.error) is ComfyUIUnavailableError
    # The job had only to be fetched.
    assert (caught.value.waited, caught.value.executing, scene.suspected) == (True, False, 0)


@pytest.mark.parametrize("ended", [True, False])
def test_a_server_dies_of_what_it_was_seen_to_execute(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, ended: bool
) -> None:
    executor = scene.executor
    scene.server.running = True
    if not ended:
        scene.server.steps = [scene.server.vanish]
    with scene.holding() as lease, suppress(AttemptFailed):
        executor.run(scene.job(), lease, lambda _: None)
    monkeypatch.setattr(Notifications, "connected", True)
    monkeypatch.setattr(Notifications, "held_since", lambda *_: False)
    monkeypatch.setattr(Notifications, "wait_cut", lambda *_: None)
    scene.server.on_submit = unreachable
    scene.server.state_of = unreachable  # type: ignore[method-assign]
    with scene.holding() as lease, pytest.raises(AttemptFailed) as caught:
        executor.run(replace(scene.job(), id="next"), lease, lambda _: None)
    # It may have died of the one before just as well, unless that has ended.
    assert caught.value.executing is ended
