"""How jobs end: once, however long it takes to record, and with nothing left behind."""

from typing import Any

import pytest

from tasks.errors import (
    BrokerFullError,
    BrokerUnavailableError,
    JobCancelledError,
    JobError,
    JobTimeoutError,
    NodeFailedError,
)
from tests.unit.scene import AFAR, AGAIN, HERE, NEIGHBOUR, TOKEN, Scene, new
from workers.execution.job import AttemptFailed, prompt_id
from workers.ledger import Cancelled, Record

pytestmark = pytest.mark.usefixtures("redis_is_asked_again_at_once")


def test_an_end_is_recorded_however_long_that_takes() -> None:
    scene = new()
    scene.executor.end = AttemptFailed(NodeFailedError("x"))
    end = scene.ledger.end
    refusals = iter([BrokerUnavailableError("away"), BrokerFullError("full")])

    def refusing(*args: Any, **named: Any) -> bool:
        if error := next(refusals, None):
            raise error
        return end(*args, **named)

    scene.ledger.end = refusing  # type: ignore[method-assign]
    scene.failed()
    assert scene.ledger.steps == ["end"]


@pytest.mark.parametrize("error", [NodeFailedError("x"), JobTimeoutError("x")], ids=str)
def test_the_failure_of_a_job_that_others_have_by_now_is_not_told(error: JobError) -> None:
    # Cut off from Redis it could not know; they may well succeed.
    scene = new()
    scene.ledger.ours = False
    scene.executor.end = AttemptFailed(error)
    scene.postponed()


# Revoked between two attempts


@pytest.mark.parametrize(
    ("record", "here", "there", "ordered"),
    [
        pytest.param(AGAIN, 1, 0, 0, id="here"),
        pytest.param(AGAIN.model_copy(update={"spent": True}), 0, 0, 0, id="spent"),
        pytest.param(
            AGAIN.model_copy(update={"place": NEIGHBOUR, "instance": NEIGHBOUR}),
            0,
            1,
            0,
            id="there",
        ),
        pytest.param(AGAIN.model_copy(update={"place": AFAR}), 0, 0, 1, id="afar"),
    ],
)
def test_a_job_that_is_revoked_between_attempts_leaves_nothing_behind(
    record: Record, here: int, there: int, ordered: int
) -> None:
    scene = Scene(Cancelled(TOKEN, record))
    with pytest.raises(JobCancelledError):
        scene.run()
    prompt = prompt_id("job", 1)
    assert scene.server.cancelled == [prompt] * here
    assert scene.neighbour.cancelled == [prompt] * there
    # Its end comes last: until then whoever gets its message does this again.
    orders = [("stop", AFAR, prompt)] * ordered
    assert scene.ledger.written == [*orders, ("end", "cancelled", "")]
    (job,) = scene.removed
    assert (job.id, job.folder) == ("job", "first")


def test_a_prompt_that_cannot_be_stopped_now_is_ordered_to_stop() -> None:
    scene = Scene(Cancelled(TOKEN, AGAIN))
    scene.server.try_cancel = lambda _: False  # type: ignore[method-assign]
    with pytest.raises(JobCancelledError):
        scene.run()
    assert scene.ledger.last("stop") == (HERE, prompt_id("job", 1))
