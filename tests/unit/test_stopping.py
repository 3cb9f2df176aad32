"""How prompts leave their server: wanted elsewhere, given up, or not to be stopped at all."""

from contextlib import suppress

import pytest

from tasks.errors import (
    ComfyUIHungError,
    ComfyUIUnavailableError,
    JobTimeoutError,
    PromptLostError,
    PromptStalledError,
)
from tests.unit.one_attempt import PROMPT, Scene, key
from workers.comfyui.model import PromptState
from workers.execution import stopping
from workers.execution.control import ServerHung, Spared
from workers.execution.job import Start
from workers.execution.keeper import Lease
from workers.execution.run import Run


def test_a_job_that_is_wanted_elsewhere_is_not_queued(scene: Scene) -> None:
    with scene.holding() as lease:
        scene.keeper.hand_over(lease)
        with pytest.raises(Spared):
            scene.attempt()
        # There is no prompt that anybody could go on with.
        assert lease.prompt_stopped
    assert (scene.server.submitted, scene.server.deleted) == ([], [])
    assert scene.store.contents == {}


def test_a_prompt_that_waits_is_taken_out_of_the_queue(scene: Scene) -> None:
    scene.server.steps = [lambda: scene.keeper.hand_over(scene.lease)]
    with scene.holding() as lease:
        with pytest.raises(Spared):
            scene.attempt()
        assert lease.prompt_stopped
    assert scene.server.deleted == [PROMPT]
    # There is nothing more to stop.
    assert scene.server.cancelled == []


def test_a_prompt_that_begins_just_then_stays(scene: Scene) -> None:
    server = scene.server
    server.steps = [lambda: scene.keeper.hand_over(scene.lease), server.end]
    server.on_delete = server.run
    with scene.holding() as lease:
        assert [output.key for output in scene.attempt().outputs] == [key("a")]
        assert (lease.prompt_stopped, lease.control.wanted_elsewhere) == (False, False)
    assert server.deleted == [PROMPT]


def test_a_prompt_that_ends_just_then_is_as_good_as_any(scene: Scene) -> None:
    server = scene.server
    server.steps = [lambda: scene.keeper.hand_over(scene.lease)]
    server.on_delete = server.end
    with scene.holding() as lease:
        assert [output.key for output in scene.attempt().outputs] == [key("a")]
        assert not lease.prompt_stopped


def test_a_prompt_that_executes_is_left_alone(scene: Scene) -> None:
    server = scene.server
    server.running = True
    server.steps = [lambda: scene.keeper.hand_over(scene.lease), lambda: None, server.end]
    with scene.holding():
        assert [output.key for output in scene.attempt().outputs] == [key("a")]
    assert server.deleted == []


def test_an_adopted_prompt_that_waits_may_go_elsewhere(scene: Scene) -> None:
    scene.server.state = PromptState.QUEUED
    scene.server.steps = [lambda: scene.keeper.hand_over(scene.lease)]
    with scene.holding() as lease:
        with pytest.raises(Spared):
            scene.attempt(Start.ADOPT)
        assert lease.prompt_stopped
    assert scene.server.deleted == [PROMPT]


def test_a_prompt_that_could_not_be_taken_out_is_tried_again(scene: Scene) -> None:
    server = scene.server
    server.steps = [lambda: scene.keeper.hand_over(scene.lease), lambda: None]
    errors = iter([ComfyUIUnavailableError("slow")] * 3)

    def delete() -> None:
        if error := next(errors, None):
            raise error
        server.vanish()

    server.on_delete = delete
    with scene.holding() as lease:
        with pytest.raises(Spared):
            scene.attempt()
        assert lease.prompt_stopped
    assert server.deleted == [PROMPT] * 4


def test_a_prompt_that_begins_meanwhile_is_not_tried_again(scene: Scene) -> None:
    server = scene.server
    server.steps = [lambda: scene.keeper.hand_over(scene.lease), lambda: None, server.end]

    def delete() -> None:
        server.run()
        raise ComfyUIUnavailableError("slow")

    server.on_delete = delete
    with scene.holding():
        assert [output.key for output in scene.attempt().outputs] == [key("a")]
    assert server.deleted == [PROMPT]


def test_a_prompt_that_was_taken_out_though_the_answer_got_lost_is_spared(scene: Scene) -> None:
    server = scene.server
    server.steps = [lambda: scene.keeper.hand_over(scene.lease)]

    def delete() -> None:
        server.vanish()
        raise ComfyUIUnavailableError("the answer was lost")

    server.on_delete = delete
    with scene.holding() as lease:
        with pytest.raises(Spared):
            scene.attempt()
        assert lease.prompt_stopped
    assert server.deleted == [PROMPT]


@pytest.mark.parametrize("wanted", [False, True])
def test_a_prompt_that_is_lost_while_it_executes_is_lost(scene: Scene, wanted: bool) -> None:
    scene.server.running = True
    scene.server.steps = [
        lambda: scene.keeper.hand_over(scene.lease) if wanted else None,
        scene.server.vanish,
    ]
    failed = scene.failed()
    assert (type(failed.error), failed.executing) == (PromptLostError, True)
    assert scene.suspected > 0


def test_a_prompt_that_is_lost_while_nobody_wants_it_elsewhere_is_lost(scene: Scene) -> None:
    scene.server.steps = [scene.server.vanish]
    assert type(scene.failed().error) is PromptLostError


def give_up(
    scene: Scene, lease: Lease, reason: Exception, start: Start = Start.SUBMIT
) -> list[str]:
    """Stop the prompt for this reason; those that keep the server from being used."""
    quarantined: list[str] = []
    one = stopping.Stopping(scene.server, scene.keeper, quarantined.append)  # type: ignore[arg-type]
    with suppress(ComfyUIHungError):
        one.give_up(Run(scene.job(start), lease, lambda _: None, began=0.0), reason)
    return quarantined


def test_a_server_that_does_not_stop_a_stalled_prompt_is_not_used(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It is over at once.
    monkeypatch.setattr(stopping, "_STOP_SECONDS", 0.0)
    with scene.holding() as lease:
        assert give_up(scene, lease, PromptStalledError("no sign of life")) == [PROMPT]
        # All that wait there go elsewhere.
        with pytest.raises(ServerHung):
            lease.control.check()
    assert scene.server.cancelled == [PROMPT]


def test_a_server_that_stops_a_stalled_prompt_goes_on(scene: Scene) -> None:
    with scene.holding() as lease:
        assert give_up(scene, lease, PromptStalledError("no sign of life")) == []
        lease.control.check()
    assert scene.server.cancelled == [PROMPT]


def test_nothing_is_stopped_that_has_been_executed_elsewhere(scene: Scene) -> None:
    with scene.holding() as lease:
        assert give_up(scene, lease, JobTimeoutError("too late"), Start.COLLECT) == []
        assert not lease.prompt_stopped
    assert scene.server.cancelled == scene.there.cancelled == []
