"""Which queues a worker on RabbitMQ takes from, and in which order."""

import pytest

from workers.broker.rabbitmq.lanes import LaneQueue, in_order, lane_queue, level_of, open_to
from workers.routing.lanes import Lane

LEVELS = ("comfyui.urgent", "comfyui", "comfyui.batch")


def test_a_lane_has_a_queue_on_each_level() -> None:
    lane = Lane.of("", ["b", "a"])
    queues = [lane_queue(level, lane) for level in LEVELS]
    assert len({queue.name for queue in queues}) == 3
    assert [queue.level for queue in queues] == list(LEVELS)
    assert {queue.id for queue in queues} == {lane.id}
    assert {queue.unable for queue in queues} == {("a", "b")}


def test_from_one_lane_to_another_a_job_stays_on_its_level() -> None:
    first = lane_queue("comfyui.batch", Lane.of("", ["a"]))
    second = lane_queue(first.name, Lane.of("", ["b"]))
    assert (first.level, second.level) == ("comfyui.batch", "comfyui.batch")
    assert second.name != first.name
    assert level_of("comfyui") == "comfyui"


@pytest.mark.parametrize(
    ("unable", "digest", "live", "complete", "is_open"),
    [
        pytest.param(["a"], "b", ["a", "b"], True, True, id="its server can"),
        pytest.param(["a"], "a", ["a", "b"], True, False, id="another can"),
        pytest.param(["a"], "a", ["a"], True, True, id="nobody can any more"),
        pytest.param(["a"], "a", ["a"], False, False, id="who can may come back"),
        pytest.param(["a"], "", ["b"], True, False, id="it does not know its server"),
        pytest.param(["a"], "", [], True, True, id="nobody is there who could"),
    ],
)
def test_who_takes_from_a_lane(
    unable: list[str], digest: str, live: list[str], complete: bool, is_open: bool
) -> None:
    lane = LaneQueue("comfyui.lane.x", tuple(unable))
    assert open_to([lane], digest, live, complete=complete) == ((lane,) if is_open else ())


def test_lanes_come_before_the_queue_of_their_level() -> None:
    lanes = [LaneQueue(f"{level}.lane.{name}", ()) for name in "ba" for level in LEVELS[1:]]
    assert in_order(LEVELS, lanes) == (
        "comfyui.urgent",
        *("comfyui.lane.a", "comfyui.lane.b", "comfyui"),
        *("comfyui.batch.lane.a", "comfyui.batch.lane.b", "comfyui.batch"),
    )


def test_a_lane_of_a_queue_that_is_not_taken_from_is_not_either() -> None:
    assert in_order(("comfyui",), [LaneQueue("other.lane.a", ())]) == ("comfyui",)
