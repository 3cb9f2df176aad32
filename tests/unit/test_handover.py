"""How a job is left to others: what they are told, and what becomes of its prompt."""

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from tasks.errors import BrokerUnavailableError, StorageUnavailableError
from tests.unit.scene import (
    AGAIN,
    HERE,
    NEIGHBOUR,
    RECORD,
    RESULT,
    Keeper,
    again,
    new,
    orphaned,
    refusing,
)
from workers.comfyui import Notifications
from workers.comfyui.model import PromptState
from workers.execution import Executor, waiting
from workers.execution.control import HandedOn, LeaseLost, ServerLost, Spared, WorkerLeaving
from workers.execution.diagnosis import Diagnosis
from workers.execution.job import Start, prompt_id
from workers.execution.manifests import Manifests
from workers.execution.prompts import Prompts
from workers.execution.staging import Staging
from workers.execution.stopping import Stopping
from workers.execution.storing import Storing
from workers.ledger import Record, Route
from workers.storage.store import StoredObject

pytestmark = pytest.mark.usefixtures("redis_is_asked_again_at_once")


def test_a_job_is_left_to_who_has_its_server_now_with_what_runs_there() -> None:
    scene = new()
    scene.executor.end = ServerLost("another worker drives its server now")
    scene.postponed()
    (record, pause) = scene.ledger.last("release")
    assert (pause, record.failures, record.crashes, record.spent) == (0.0, 0, 0, False)
    assert record.route.prefer == record.place == HERE
    assert record.attempts[-1].error == "ServerLost: another worker drives its server now"
    assert scene.server.cancelled == []


@pytest.mark.parametrize(
    ("kept", "stopped"),
    [
        pytest.param(RECORD.model_copy(update={"prompt": 2}), True, id="others run their own"),
        pytest.param(RECORD, False, id="others have adopted it"),
    ],
)
def test_who_has_lost_its_server_and_the_job_leaves_no_prompt_that_nobody_waits_for(
    kept: Record, stopped: bool
) -> None:
    scene = new()
    scene.executor.end = ServerLost("x")
    scene.ledger.ours = False
    scene.ledger.kept = kept
    scene.postponed()
    assert scene.server.cancelled == ([prompt_id("job", 1)] if stopped else [])


def test_a_worker_that_leaves_gives_the_job_back_for_now() -> None:
    scene = new()
    scene.executor.end = WorkerLeaving("its worker was asked to end")
    scene.executor.stops_prompt = True
    later = scene.postponed()
    assert (later.seconds, later.error) == (0.0, None)
    (record, pause) = scene.ledger.last("release")
    assert (pause, record.failures, record.crashes, record.route) == (0.0, 0, 0, Route())
    assert record.attempts[-1].error == "WorkerLeaving: its worker was asked to end"
    # Its prompt was stopped.
    assert record.spent


@pytest.mark.parametrize("stopped", [True, False], ids=["queued", "not-queued"])
@pytest.mark.parametrize(
    "record",
    [AGAIN, AGAIN.model_copy(update={"failures": 2, "crashes": 1})],
    ids=["first", "tried before"],
)
def test_a_job_that_was_spared_this_server_was_not_tried_here(
    record: Record, stopped: bool
) -> None:
    scene = again(record)
    scene.executor.end = Spared("a server elsewhere has nothing to do")
    scene.executor.stops_prompt = stopped
    later = scene.postponed()
    # To the head of the queue.
    assert (later.seconds, later.error) == (0.0, None)
    (kept, pause) = scene.ledger.last("release")
    assert (kept.attempts, kept.failures, kept.crashes) == (
        record.attempts,
        record.failures,
        record.crashes,
    )
    assert (kept.route, pause) == (Route(), 0.0)
    # A prompt that was taken out of the server's queue is none to go on with.
    assert kept.spent == stopped
    assert scene.server.cancelled == []


def test_a_job_that_was_spared_before_anybody_tried_it_has_no_attempts() -> None:
    scene = new()
    scene.executor.end = Spared("x")
    scene.executor.stops_prompt = True
    scene.postponed()
    (kept, _) = scene.ledger.last("release")
    assert (kept.attempts, kept.spent) == ((), True)
    # Whoever has it next makes a prompt of its own.
    scene = again(kept)
    assert scene.run() == RESULT
    assert (scene.job.number, scene.job.start) == (1, Start.SUBMIT)
    assert (scene.server.asked, scene.ledger.steps) == ([], ["save", "end"])


def test_a_collected_prompt_is_there_for_the_next_one() -> None:
    scene = orphaned(place=NEIGHBOUR, instance=NEIGHBOUR)
    scene.neighbour.state = PromptState.ENDED
    scene.executor.end = WorkerLeaving("x")
    scene.postponed()
    assert not scene.ledger.last("release")[0].spent


@pytest.mark.parametrize("spent", [False, True])
def test_a_worker_that_leaves_before_the_attempt_leaves_the_prompt_as_it_was(spent: bool) -> None:
    scene = again(AGAIN.model_copy(update={"spent": spent}))
    scene.executor.manifest = WorkerLeaving("while the store was away")
    scene.postponed()
    assert scene.executor.jobs == []
    assert scene.ledger.last("release")[0].spent == spent


def test_a_job_that_cannot_be_given_back_is_left_to_its_lease() -> None:
    scene = new()
    scene.executor.end = WorkerLeaving("x")
    scene.ledger.release = refusing  # type: ignore[method-assign]
    assert scene.postponed().seconds == 0.0


class Listening(Notifications):
    """A websocket that is not there, so that the history is asked at once."""

    def __init__(self) -> None:
        super().__init__(HERE, "mine")


class Store:
    """A store that fails while the worker is told to leave, or takes everything meanwhile."""

    bucket = "b"

    def __init__(self, keeper: Keeper, *, fails: bool) -> None:
        self._keeper = keeper
        self._fails = fails

    def get(self, _: str) -> None:
        return None

    def put(self, key: str, _: object) -> StoredObject:
        self._keeper.lease.control.stop(WorkerLeaving("its worker was asked to end"))
        if self._fails:
            raise StorageUnavailableError("away")
        return StoredObject("b", key, "image/png", 1, "abc")


@pytest.mark.parametrize("fails", [True, False], ids=["store-away", "all-uploaded"])
def test_a_worker_that_leaves_while_it_uploads_leaves_what_is_rendered(
    monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    monkeypatch.setattr(waiting, "POLL_DEAF", 0.0)
    scene = new()
    store = Store(scene.keeper, fails=fails)
    manifests = Manifests(store, None, scene.keeper, takes_conditions=lambda: True)
    with ThreadPoolExecutor(1) as uploaders:
        diagnosis = Diagnosis(None, None, None)
        scene.executor = Executor(
            staging=Staging(
                inputs=SimpleNamespace(place=lambda workflow, *_: workflow),
                refuse_parts=lambda *_: None,
                object_info=dict,
                workflow_max_bytes=10**6,
            ),
            prompts=Prompts(
                comfyui=scene.server,
                notifications=Listening(),
                listen_as=None,
                server_at=None,
                breaker=SimpleNamespace(suspect=None, accept=lambda: None),
                keeper=scene.keeper,
                stopping=Stopping(scene.server, scene.keeper, None),
                diagnosis=diagnosis,
                stall_seconds=60.0,
            ),
            storing=Storing(
                store=store,
                uploaders=uploaders,
                removal=SimpleNamespace(remove_files=lambda *_, **__: None),
                manifests=manifests,
                keeper=scene.keeper,
                s3_patience_seconds=60.0,
            ),
            diagnosis=diagnosis,
            keeper=scene.keeper,
            store=store,
            manifests=manifests,
            removal=None,
            worker="w",
            prefix="",
            s3_patience_seconds=60.0,
        )
        scene.postponed()
    (record, _) = scene.ledger.last("release")
    assert record.attempts[-1].error.startswith("WorkerLeaving: ")
    assert scene.server.cancelled == []
    # The next one collects it: the GPU has been paid for.
    assert not record.spent


OTHERS = RECORD.model_copy(update={"place": NEIGHBOUR, "prompt": 2})


@pytest.mark.parametrize(
    ("kept", "stopped"),
    [
        pytest.param(OTHERS, True, id="others run their own"),
        pytest.param(None, True, id="the job has ended"),
        pytest.param(RECORD, False, id="others have adopted it"),
    ],
)
def test_who_has_lost_a_job_stops_its_prompt_unless_others_go_on_with_it(
    kept: Record | None, stopped: bool
) -> None:
    scene = new()
    scene.executor.end = LeaseLost("somebody else has the job")
    scene.ledger.kept = kept
    later = scene.postponed()
    assert later.error is None
    assert scene.server.cancelled == ([prompt_id("job", 1)] if stopped else [])
    # It is not ours to write.
    assert scene.ledger.written == []


def test_who_has_lost_a_job_and_cannot_ask_stops_nothing() -> None:
    scene = new()
    scene.executor.end = LeaseLost("x")

    def away(_: str) -> None:
        raise BrokerUnavailableError("away")

    scene.ledger.record = away  # type: ignore[method-assign]
    scene.postponed()
    assert scene.server.cancelled == []


@pytest.mark.parametrize("reason", [LeaseLost("x"), WorkerLeaving("x"), Spared("x")], ids=repr)
def test_what_is_handed_on_never_ends_here(reason: HandedOn) -> None:
    scene = orphaned()
    scene.executor.end = reason
    scene.postponed()
    assert "end" not in scene.ledger.steps
