"""Where a job may run: what servers can do, and the wishes of attempts before."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tasks.errors import (
    BrokerFullError,
    BrokerUnavailableError,
    CancelledError,
    ComfyUIUnavailableError,
    JobError,
    NodeForbiddenError,
    OutOfMemoryError,
)
from tests.unit.scene import (
    AGAIN,
    HERE,
    NEIGHBOUR,
    NOW,
    ORDER,
    REFUSED,
    RESULT,
    TOKEN,
    Scene,
    again,
    new,
    orphaned,
    refused,
    routed,
)
from workers.comfyui.model import PromptState
from workers.execution.job import AttemptFailed
from workers.ledger import Cancelled, Route
from workers.routing.lanes import Lane, Later

pytestmark = pytest.mark.usefixtures("redis_is_asked_again_at_once")


@pytest.mark.parametrize("field", ["expired", "revoked"])
def test_what_is_not_to_be_begun_need_not_wait_for_another_server(field: str) -> None:
    scene = new() if field == "expired" else Scene(Cancelled(TOKEN, None))
    scene.router.way = Lane.of("", ["here"])
    with pytest.raises(CancelledError):
        scene.run(replace(ORDER, **{field: True}))
    assert scene.executor.jobs == []


# What the server refuses


def test_what_another_server_can_run_goes_there_at_no_cost() -> None:
    lane = Lane.of("", ["here"])
    scene = refused(lane)
    later = scene.postponed()
    assert (later.seconds, later.lane, later.error) == (0.0, lane, None)
    record, pause = scene.ledger.last("release")
    assert (record.attempts, record.spent, pause) == ((), True, 0.0)


def test_what_goes_to_another_server_has_no_wish_left() -> None:
    scene = routed(prefer=HERE)
    scene.executor.end, scene.router.after = REFUSED, Later(5.0)
    assert scene.postponed().seconds == 5.0
    assert scene.ledger.last("release")[0].route == Route()


def test_what_no_server_can_run_fails_and_says_why() -> None:
    assert refused().failed().error.message == "explained: the server refuses it"


@pytest.mark.parametrize("leaf", [BrokerUnavailableError, BrokerFullError])
@pytest.mark.parametrize("step", ["after", "unexplained"])
def test_while_redis_does_not_tell_what_others_can_do_nothing_is_decided(
    leaf: type[JobError], step: str
) -> None:
    scene = refused()
    setattr(scene.router, step, leaf("Redis is away"))
    later = scene.postponed()
    assert (later.lane, later.error) == (None, None)
    assert scene.ledger.last("release")[0].attempts == ()


def test_a_refused_job_that_cannot_be_judged_fails_as_the_server_has_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert refused(KeyError("a fault")).failed().error.message == "the server refuses it"
    assert "a fault" in caplog.text


def test_a_job_that_cannot_be_judged_is_tried_again_all_the_same() -> None:
    scene = new()
    scene.executor.end = AttemptFailed(OutOfMemoryError("x"))
    scene.router.unfit_places = KeyError("a fault")
    assert scene.postponed().error is not None


# Whom it is meant for


@pytest.mark.parametrize("route", [{"prefer": NEIGHBOUR}, {"avoid": (HERE,)}])
def test_a_job_is_left_to_whom_it_is_meant_for(route: dict[str, Any]) -> None:
    scene = routed(**route)
    later = scene.postponed()
    assert (0 < later.seconds < 2.0, later.error) == (True, None)
    (record, pause) = scene.ledger.last("release")
    assert (record.attempts, record.route.until) == (AGAIN.attempts, NOW + 60.0)
    assert pause == 0.0
    assert scene.executor.jobs == []


@pytest.mark.parametrize("route", [{}, {"prefer": HERE}, {"avoid": (NEIGHBOUR,)}], ids=str)
def test_a_job_is_kept_that_is_not_meant_for_others(route: dict[str, Any]) -> None:
    scene = routed(**route)
    scene.ledger.live = {HERE, NEIGHBOUR, "http://third"}
    assert scene.run() == RESULT


@pytest.mark.parametrize(
    ("state", "waits"),
    [
        (PromptState.QUEUED, True),
        (PromptState.ENDED, False),
        (PromptState.UNKNOWN, False),
        (ComfyUIUnavailableError("away"), False),
    ],
)
def test_a_prompt_is_left_to_its_place_only_while_it_runs_there(
    state: PromptState | Exception, waits: bool
) -> None:
    scene = orphaned(place=NEIGHBOUR, instance=NEIGHBOUR)
    scene.ledger.live = {HERE, NEIGHBOUR}
    scene.neighbour.state = state
    if waits:
        assert scene.postponed().error is None
    else:
        assert scene.run() == RESULT
    assert (scene.executor.jobs == []) == waits


@pytest.mark.parametrize(
    "route",
    [
        {},
        {"prefer": HERE},
        {"prefer": "http://dead"},
        {"avoid": (NEIGHBOUR,)},
        {"avoid": (HERE, NEIGHBOUR)},
        {"prefer": NEIGHBOUR, "until": 1.0},
        {"avoid": (HERE,), "until": 1.0},
    ],
    ids=str,
)
def test_a_wish_that_nobody_can_fulfil_holds_nobody_up(route: dict[str, Any]) -> None:
    scene = routed(**route)
    assert scene.run() == RESULT


@pytest.mark.parametrize(
    ("scene", "bound"),
    [
        pytest.param(new, False, id="new"),
        pytest.param(again, False, id="anywhere"),
        pytest.param(lambda: routed(prefer=HERE), True, id="here"),
        pytest.param(lambda: routed(avoid=("http://dead",)), True, id="not there"),
        pytest.param(lambda: routed(prefer=HERE, until=NOW - 1.0), False, id="here, once"),
        # Here is the prompt that can be gone on with.
        pytest.param(orphaned, True, id="orphaned"),
    ],
)
def test_a_job_may_go_to_any_other_server_unless_a_wish_holds(
    scene: Callable[[], Scene], bound: bool
) -> None:
    one = scene()
    assert one.run() == RESULT
    assert one.executor.bound == [bound]


def test_with_a_server_elsewhere_the_next_attempt_avoids_this_one() -> None:
    scene = new()
    scene.ledger.live = {HERE, NEIGHBOUR}
    scene.executor.end = AttemptFailed(ComfyUIUnavailableError("it is down"))
    later = scene.postponed()
    (record, _) = scene.ledger.last("release")
    assert record.route.avoid == (HERE,)
    assert record.route.until > NOW + later.seconds


def test_whether_there_is_an_elsewhere_need_not_be_known() -> None:
    scene = new()
    scene.executor.end = AttemptFailed(ComfyUIUnavailableError("it is down"))

    def away() -> frozenset[str]:
        raise BrokerUnavailableError("away")

    scene.ledger.live_places = away  # type: ignore[method-assign]
    scene.postponed()
    assert scene.ledger.last("release")[0].route == Route()


def test_what_is_not_allowed_fails_though_another_server_would_take_it() -> None:
    scene = new()
    scene.executor.end = AttemptFailed(NodeForbiddenError("node 1 (A): not allowed"), waited=True)
    scene.router.after = Lane.of("", ["x"])
    assert isinstance(scene.failed().error, NodeForbiddenError)
    assert scene.ledger.steps == ["end"]
