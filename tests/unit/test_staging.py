"""What a server is sent: exports as API format, and nothing that it would run in parts."""

from typing import Any

import pytest

from tasks.errors import ComfyUIUnavailableError, InvalidWorkflowError
from tests.unit.one_attempt import EXPORT, FAILURE, Scene, key
from workers.comfyui.model import PromptState
from workers.execution.job import Start


def test_an_export_is_sent_in_api_format_with_its_params_set(scene: Scene) -> None:
    scene.workflow = EXPORT
    with scene.holding():
        result = scene.attempt(params={"9.filename_prefix": "y"})
    sent = {"class_type": "SaveImage", "inputs": {"filename_prefix": "y"}}
    assert scene.server.workflow == {"9": {**sent, "_meta": {"title": "SaveImage"}}}
    assert scene.server.export == EXPORT
    assert [output.key for output in result.outputs] == [key("a")]


def test_what_fails_is_named_as_it_was_sent(scene: Scene) -> None:
    scene.workflow, scene.server.entry = EXPORT, FAILURE
    assert scene.failed().error.message.startswith("node 9 (SaveImage) raised ValueError")


@pytest.mark.parametrize("start", [Start.ADOPT, Start.COLLECT])
def test_what_was_rendered_is_stored_though_the_server_does_not_say_what_it_has(
    scene: Scene, start: Start
) -> None:
    def fail() -> Any:
        raise ComfyUIUnavailableError("x")

    scene.workflow, scene.on_object_info = EXPORT, fail
    scene.server.state = scene.there.state = PromptState.ENDED
    with scene.holding():
        result = scene.attempt(start, params={"9.filename_prefix": "y"})
    assert [output.key for output in result.outputs] == [key("a")]


def test_a_server_that_does_not_say_what_it_has_is_tried_again(scene: Scene) -> None:
    def fail() -> Any:
        raise ComfyUIUnavailableError("x")

    scene.workflow, scene.on_object_info = EXPORT, fail
    failed = scene.failed()
    assert isinstance(failed.error, ComfyUIUnavailableError)
    # It has cost the job nothing, and the server is looked at.
    assert (failed.executing, failed.rendered, scene.suspected) == (False, False, 1)


def test_what_would_be_executed_in_parts_is_refused_before_anything_is_placed(
    scene: Scene,
) -> None:
    placed: list[None] = []

    def refuse() -> None:
        raise InvalidWorkflowError("x")

    scene.on_refuse_parts, scene.on_place = refuse, lambda: placed.append(None)
    assert type(scene.failed().error) is InvalidWorkflowError
    assert (placed, scene.server.submitted) == ([], [])
