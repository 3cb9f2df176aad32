"""One attempt on paper, from its prompt to its result."""

import json
import time
from typing import Any

import pytest

from tasks.errors import PromptLostError
from tests.unit.one_attempt import PROMPT, SUCCESS, WORKFLOW, Scene, images, key
from workers.comfyui.model import PromptState
from workers.execution.job import AttemptFailed, Start
from workers.execution.keeper import Phase
from workers.observing import FileStored, NodesExecuted, StageEnded


def test_an_attempt_from_its_prompt_to_its_files(scene: Scene) -> None:
    scene.server.steps = [scene.server.run, scene.server.end]
    with scene.holding():
        result = scene.attempt()
    assert scene.server.submitted == [PROMPT]
    assert (scene.server.workflow, scene.server.export) == (WORKFLOW, None)
    assert [output.key for output in result.outputs] == [key("a")]
    assert scene.store.files == {key("a")}
    stages = ["staging", "queued", "executing", "uploading", "uploading"]
    assert [one.stage for one in scene.told] == stages
    observed = [
        (type(one), getattr(one, "stage", getattr(one, "key", None))) for one in scene.events
    ]
    assert observed == [
        (StageEnded, "staging"),
        (NodesExecuted, None),
        (StageEnded, "executing"),
        (FileStored, key("a")),
        (StageEnded, "uploading"),
        (StageEnded, "committing"),
    ]
    assert scene.phases == [Phase.WAITING, Phase.WAITING, Phase.EXECUTING, *[Phase.STORING] * 2]


def test_the_nodes_that_were_heard_of_are_told_also_of_a_prompt_that_fails(scene: Scene) -> None:
    def hear() -> None:
        for node in ("9", "9.1"):
            data = {"prompt_id": PROMPT, "node": node}
            message = json.dumps({"type": "executing", "data": data})
            scene.notifications._dispatch(message.encode())
        data = {"prompt_id": PROMPT, "node_id": "9.1"}
        failed = json.dumps({"type": "execution_error", "data": data})
        scene.notifications._dispatch(failed.encode())
        scene.server.vanish()

    scene.server.steps = [hear]
    before = time.time()
    assert isinstance(scene.failed().error, PromptLostError)
    (told,) = (event for event in scene.events if isinstance(event, NodesExecuted))
    # The second one was made by another one, and stands in no workflow.
    classes = [(node.node_id, node.class_type) for node in told.nodes]
    assert classes == [("9", "SaveImage"), ("9.1", None)]
    assert all(before - 1 <= node.began_at <= time.time() + 1 for node in told.nodes)


@pytest.mark.parametrize(
    ("outputs", "values"),
    [
        ({}, [0.9]),
        ({"9": {"text": ["a"]}}, [0.9]),
        ({"9": images("a")}, [0.9, 1.0]),
        ({"9": images("a", "b"), "10": images("c", "d")}, [0.9, 0.925, 0.95, 0.975, 1.0]),
    ],
    ids=repr,
)
def test_each_file_that_is_stored_is_progress(
    scene: Scene, outputs: dict[str, Any], values: list[float]
) -> None:
    scene.server.entry = {**SUCCESS, "outputs": outputs}
    with scene.holding():
        scene.attempt()
    # Also where there is none it is told that the GPU has done with it.
    assert [one.value for one in scene.told if one.stage == "uploading"] == values


def test_what_was_executed_elsewhere_needs_no_gpu(scene: Scene) -> None:
    scene.there.state = PromptState.ENDED
    with scene.holding() as lease:
        scene.attempt(Start.COLLECT)
        # Nor may any other server have it.
        assert lease.bound_until == float("inf")
        assert scene.keeper.spare is None
    # From the first.
    assert set(scene.phases) == {Phase.STORING}


RENDER = {"1": {"class_type": "Render", "inputs": {"seed": 1, "model": "a"}}}
OF_RENDER = {
    "Render": {
        "input": {"required": {"seed": ["INT", {"min": 0, "max": 9**9}], "model": [["a"], {}]}}
    }
}


@pytest.mark.parametrize("start", [Start.SUBMIT, Start.ADOPT])
def test_a_seed_is_told_and_the_same_in_every_attempt(scene: Scene, start: Start) -> None:
    scene.on_object_info = lambda: OF_RENDER
    scene.server.state = PromptState.ENDED
    with scene.holding():
        seeds = [
            scene.attempt(start, workflow=RENDER, params={"Render.seed": "random"}).seeds
            for start in (start, Start.SUBMIT)
        ]
    assert seeds[0] == seeds[1]
    assert list(seeds[0]) == ["1.seed"]
    assert 0 <= seeds[0]["1.seed"] <= 9**9


def test_the_seed_of_what_was_executed_elsewhere_is_told_by_that_server(scene: Scene) -> None:
    scene.there.state = PromptState.ENDED
    executed = {"1": {"class_type": "Render", "inputs": {"seed": 77, "model": "b"}}}
    scene.there.entry = {**SUCCESS, "outputs": {}, "prompt": [0, PROMPT, executed, {}, ["1"]]}
    # Of what that server has this one need not have anything.
    params = {"1.seed": "random", "1.model": "b"}
    with scene.holding():
        result = scene.attempt(Start.COLLECT, workflow=RENDER, params=params)
    assert result.seeds == {"1.seed": 77}


def test_params_are_checked_before_a_gpu_is_used(scene: Scene) -> None:
    scene.on_object_info = lambda: OF_RENDER
    with scene.holding(), pytest.raises(AttemptFailed) as caught:
        scene.attempt(workflow=RENDER, params={"1.model": "b"})
    assert "node 1 (Render), input model: found 'b'" in caught.value.error.message
    assert scene.server.submitted == []


def test_what_was_executed_elsewhere_is_not_given_away(scene: Scene) -> None:
    # It was asked for before anybody knew that.
    scene.there.state = PromptState.QUEUED
    with scene.holding() as lease:
        lease.control.want_elsewhere()
        assert scene.attempt(Start.COLLECT).outputs
    assert scene.server.deleted == []
