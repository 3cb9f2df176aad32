"""When a worker takes jobs: the circuit's decisions, its thread, and the gate that obeys it."""

import logging
import queue
import re
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace

import pytest
from celery import Celery
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import ComfyUIUnavailableError
from workers.broker.gate import Gate
from workers.comfyui.model import PromptQueue
from workers.lifecycle import circuit as module
from workers.lifecycle.circuit import (
    BACKOFF_FIRST,
    BACKOFF_MOST,
    REFUSED_MOST,
    SAFETY_SECONDS,
    Accepted,
    Answered,
    Circuit,
    Event,
    Failed,
    Quarantined,
    Refused,
    State,
    Suspected,
    fold,
)

PATIENCE = 10.0
UNKNOWN = State(since=100.0, probe_at=100.0)
CLOSED = State(since=100.0, probe_at=100.0 + SAFETY_SECONDS, closed=True)


def after(state: State, *events: Event, now: float = 110.0, jitter: float = 1.0) -> State:
    for event in events:
        state = fold(state, event, now, jitter)
    return state


# The fold


def test_an_unknown_server_is_looked_at_now_and_its_first_answer_closes() -> None:
    assert (UNKNOWN.closed, UNKNOWN.probe_at) == (False, UNKNOWN.since)
    state = after(UNKNOWN, Answered(109.0, ()))
    assert (state.closed, state.since, state.probe_at) == (True, 110.0, 110.0 + SAFETY_SECONDS)


def test_backoff_doubles_up_to_its_most_and_begins_anew_after_an_answer() -> None:
    state, waits = CLOSED, []
    for _ in range(7):
        state = after(state, Failed("refused"))
        waits.append(state.probe_at - 110.0)
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    state = after(state, Answered(109.0, ()), Failed("refused"))
    assert state.probe_at == 110.0 + BACKOFF_FIRST


def test_after_weeks_the_wait_is_still_the_most() -> None:
    state = after(replace(UNKNOWN, failures=1_000_000), Failed("refused"))
    assert state.probe_at == 110.0 + BACKOFF_MOST


def test_jitter_takes_up_to_half_of_the_wait() -> None:
    assert after(CLOSED, Failed("refused"), jitter=0.0).probe_at == 110.0 + BACKOFF_FIRST / 2


def test_since_is_when_it_opened_not_when_it_was_last_found_open() -> None:
    state = after(CLOSED, Failed("refused"), now=110.0)
    assert after(state, Failed("reset"), Suspected(), now=120.0).since == 110.0
    assert after(state, Failed("reset"), now=120.0).reason == "reset"


def test_a_suspicion_has_a_closed_circuit_look_now() -> None:
    state = after(CLOSED, Suspected())
    assert (state.closed, state.probe_at) == (True, 110.0)


def test_a_suspicion_leaves_the_backoff_of_an_open_circuit_alone() -> None:
    state = after(CLOSED, Failed("refused"))
    assert after(state, Suspected(), now=110.1).probe_at == state.probe_at


@pytest.mark.parametrize("state", [UNKNOWN, CLOSED])
def test_an_answer_older_than_a_suspicion_does_not_settle_it(state: State) -> None:
    state = fold(state, Suspected(), 110.0, 1.0)
    late = fold(state, Answered(109.0, ()), 111.0, 1.0)
    assert (late.closed, late.probe_at) == (True, 111.0)
    settled = fold(late, Answered(111.0, ()), 112.0, 1.0)
    assert (settled.closed, settled.probe_at) == (True, 112.0 + SAFETY_SECONDS)
    assert settled.since == late.since


def test_quarantine_opens_until_its_prompts_have_left_the_server() -> None:
    state = after(CLOSED, Quarantined("a"), Quarantined("b"))
    assert not state.closed
    state = after(state, Answered(109.0, ("a", "c")))
    assert (state.closed, state.quarantined) == (False, {"a"})
    assert "prompt a " in state.reason
    # A server that is down has not let go of it.
    state = after(state, Failed("refused"))
    assert state.quarantined == {"a"}
    assert after(state, Answered(109.0, ("c",))).closed


# A server that answers and takes no prompts


def test_one_job_that_is_refused_may_be_the_reason_itself() -> None:
    state = after(CLOSED, Refused("a"), Refused("a"), Refused("a"))
    assert (state.closed, state.takes_no_prompts) == (True, False)
    # And what is taken in between says that it is.
    state = after(state, Accepted(), Refused("b"))
    assert (state.closed, state.takes_no_prompts) == (True, False)


def test_two_jobs_that_are_refused_in_a_row_open_it_whatever_the_server_answers() -> None:
    state = after(CLOSED, Refused("a"), Answered(109.0, ()), Refused("b"))
    assert (state.closed, state.takes_no_prompts) == (False, True)
    assert state.reason == "it answers, and takes no prompts"
    assert state.probe_at == 110.0 + BACKOFF_FIRST
    early = after(state, Answered(110.0, ()))
    assert (early.closed, early.probe_at) == (False, state.probe_at)
    assert after(early, Answered(110.0, ()), now=state.probe_at).closed


def test_it_is_tried_by_one_refusal_at_a_time_ever_more_rarely() -> None:
    state, now, waits = after(CLOSED, Refused("a"), Refused("b")), 110.0, []
    for _ in range(9):
        waits.append(state.refused_until - now)
        now = state.refused_until
        state = after(state, Answered(now, ()), now=now)
        assert state.closed
        # What was under way with it is refused as well, and says nothing new.
        state = after(state, Refused("c"), Refused("d"), now=now)
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, REFUSED_MOST, REFUSED_MOST]
    assert len(state.refused) == 2


def test_with_a_prompt_that_is_taken_all_is_forgotten() -> None:
    state = after(CLOSED, Refused("a"), Refused("b"))
    state = after(state, Answered(110.0, ()), Accepted(), now=state.refused_until)
    assert (state.closed, state.takes_no_prompts, state.refusals) == (True, False, 0)


EVENTS = st.one_of(
    st.builds(Refused, st.sampled_from("abc")),
    st.builds(Accepted),
    st.builds(Answered, st.floats(0, 100), st.sets(st.sampled_from("abc")).map(tuple)),
    st.builds(Failed, st.just("refused")),
    st.builds(Suspected),
    st.builds(Quarantined, st.sampled_from("abc")),
)


@given(st.lists(st.tuples(EVENTS, st.floats(0, 20), st.floats(0, 1))))
def test_a_server_is_always_looked_at_again(events: list[tuple[Event, float, float]]) -> None:
    state, now = State(since=0.0, probe_at=0.0), 0.0
    for event, seconds, jitter in events:
        now += seconds
        state = fold(state, event, now, jitter)
        assert state.probe_at <= now + (SAFETY_SECONDS if state.closed else REFUSED_MOST)
        assert state.since <= now
        if state.closed:
            assert (state.reason, state.quarantined, state.failures) == ("", frozenset(), 0)


# The thread


class Server:
    """A server whose every answer the test gives."""

    base_url = "http://gpu:8188"

    def __init__(self) -> None:
        self._asked: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Callable[[], PromptQueue]] = queue.SimpleQueue()

    def queue(self) -> PromptQueue:
        self._asked.put(None)
        return self._answers.get(timeout=PATIENCE)()

    def wait_until_asked(self) -> None:
        self._asked.get(timeout=PATIENCE)

    def answer(self, *running: str) -> None:
        self._answers.put(lambda: PromptQueue(running, ()))

    def fail(self, error: Exception) -> None:
        def answer() -> PromptQueue:
            raise error

        self._answers.put(answer)


REFUSED = ComfyUIUnavailableError("connection refused")


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def circuit(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Circuit]:
    monkeypatch.setattr(module, "BACKOFF_FIRST", 0.001)
    monkeypatch.setattr(module, "BACKOFF_MOST", 0.001)
    monkeypatch.setattr(module, "_STOP_SECONDS", PATIENCE)
    one = Circuit(server)  # type: ignore[arg-type]
    yield one
    server.answer()
    one.stop()


@pytest.fixture
def told(circuit: Circuit) -> "queue.SimpleQueue[bool]":
    changes: queue.SimpleQueue[bool] = queue.SimpleQueue()
    circuit.subscribe(changes.put)
    return changes


def close(circuit: Circuit, server: Server) -> None:
    circuit.start()
    server.wait_until_asked()
    server.answer()
    assert circuit.wait_closed(PATIENCE)


def test_it_is_open_until_the_server_is_there(
    circuit: Circuit,
    server: Server,
    told: "queue.SimpleQueue[bool]",
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    assert not circuit.closed
    assert not circuit.wait_closed(0.0)
    circuit.start()
    for _ in range(3):
        server.wait_until_asked()
        assert not circuit.closed
        server.fail(REFUSED)
    server.wait_until_asked()
    server.answer()
    assert circuit.wait_closed(PATIENCE)
    assert told.get(timeout=PATIENCE) is True
    # Told once, however long it took.
    assert told.empty()
    (warning, info) = caplog.records
    assert (warning.levelname, info.levelname) == ("WARNING", "INFO")
    assert "http://gpu:8188 is back: connection refused (fix: start it, " in warning.message
    assert re.search(r"is there after \d+\.\d s", info.message)


@pytest.mark.parametrize("error", [REFUSED, ValueError(), RuntimeError("of our own")])
def test_one_failed_look_after_a_suspicion_opens(
    circuit: Circuit,
    server: Server,
    told: "queue.SimpleQueue[bool]",
    caplog: pytest.LogCaptureFixture,
    error: Exception,
) -> None:
    close(circuit, server)
    circuit.suspect()
    server.wait_until_asked()
    assert circuit.closed
    server.fail(error)
    assert [told.get(timeout=PATIENCE) for _ in range(2)] == [True, False]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    server.wait_until_asked()
    server.answer()
    assert told.get(timeout=PATIENCE) is True
    assert circuit.closed


def test_an_unfounded_suspicion_changes_nothing(
    circuit: Circuit, server: Server, told: "queue.SimpleQueue[bool]"
) -> None:
    close(circuit, server)
    for _ in range(2):
        circuit.suspect()
        server.wait_until_asked()
        server.answer()
    circuit.suspect()
    server.wait_until_asked()
    # Whatever the answers before have changed, it has told by now.
    assert told.get(timeout=PATIENCE) is True
    assert told.empty()


def test_a_suspicion_while_it_looks_makes_it_look_again(circuit: Circuit, server: Server) -> None:
    close(circuit, server)
    circuit.suspect()
    server.wait_until_asked()
    circuit.suspect()
    server.answer()
    server.wait_until_asked()


def test_quarantine_opens_before_anybody_looks(
    circuit: Circuit, server: Server, told: "queue.SimpleQueue[bool]"
) -> None:
    close(circuit, server)
    circuit.quarantine("hung")
    assert not circuit.closed
    assert [told.get(timeout=PATIENCE) for _ in range(2)] == [True, False]
    server.wait_until_asked()
    server.answer("hung")
    server.wait_until_asked()
    assert not circuit.closed
    server.answer("another")
    assert circuit.wait_closed(PATIENCE)


def test_a_listener_that_fails_silences_nobody_else(circuit: Circuit, server: Server) -> None:
    def fail(closed: bool) -> None:
        raise RuntimeError(closed)

    told: queue.SimpleQueue[bool] = queue.SimpleQueue()
    circuit.subscribe(fail)
    circuit.subscribe(told.put)
    close(circuit, server)
    assert told.get(timeout=PATIENCE) is True
    circuit.quarantine("a")
    assert told.get(timeout=PATIENCE) is False


def test_it_stops_between_two_looks(circuit: Circuit, server: Server) -> None:
    close(circuit, server)
    circuit.stop()
    assert not circuit._thread.is_alive()


def test_it_stops_though_the_server_hangs_and_hears_no_late_answer(
    circuit: Circuit, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_STOP_SECONDS", 0.01)
    circuit.start()
    server.wait_until_asked()
    circuit.stop()
    server.answer()
    circuit._thread.join(PATIENCE)
    assert not circuit._thread.is_alive()
    assert not circuit.closed


# The gate


class Switch:
    """A circuit that the test switches."""

    closed = False

    def __init__(self) -> None:
        self._listeners: list[Callable[[bool], None]] = []

    def subscribe(self, on_change: Callable[[bool], None]) -> None:
        self._listeners.append(on_change)

    def switch(self, *, closed: bool) -> None:
        self.closed = closed
        for on_change in self._listeners:
            on_change(closed)


class FakeConsumer:
    """As much of Celery's consumer as the gate sees, on kombu's broker in memory."""

    def __init__(self, switch: Switch) -> None:
        self.app = Celery(broker="memory://", set_as_current=False)
        self.app.conf.task_default_queue = "comfyui"
        # As the watch on the bucket, which is closed as a rule.
        self.other = Switch()
        self.other.closed = True
        self.controller = SimpleNamespace(circuits=(switch, self.other))
        self.task_consumer = None
        self._soon: deque[Callable[[], None]] = deque()
        self._gate = Gate(self)
        self.received: list[str] = []

    def call_soon(self, function: Callable[..., None], *args: object) -> None:
        self._soon.append(lambda: function(*args))

    def connect(self) -> None:
        """What Celery does for each connection, in its order."""
        self._connection = self.app.connection_for_read()
        self.task_consumer = self.app.amqp.TaskConsumer(self._connection)
        self._gate.start(self)
        self.task_consumer.on_message = self._receive
        self.task_consumer.consume()

    def disconnect(self) -> None:
        self._gate.stop(self)
        self._connection.close()
        self.task_consumer = None

    def tick(self) -> None:
        """One round of the event loop."""
        while self._soon:
            self._soon.popleft()()

    def takes(self, message: str) -> bool:
        """Whether a message that is sent now is taken."""
        with self.app.connection_for_write() as connection:
            connection.SimpleQueue("comfyui").put([message])
        try:
            self._connection.drain_events(timeout=0.01)
        except TimeoutError:
            with self.app.connection_for_write() as connection:
                connection.SimpleQueue("comfyui").clear()
        return message in self.received

    def _receive(self, message) -> None:
        self.received += message.payload
        message.ack()


@pytest.fixture
def switch() -> Switch:
    return Switch()


@pytest.fixture
def consumer(switch: Switch) -> Iterator[FakeConsumer]:
    one = FakeConsumer(switch)
    yield one
    one.app.close()


def test_nothing_is_taken_before_the_circuit_closes(consumer: FakeConsumer, switch: Switch) -> None:
    consumer.connect()
    assert not consumer.takes("early")
    switch.switch(closed=True)
    consumer.tick()
    assert consumer.takes("later")
    switch.switch(closed=False)
    consumer.tick()
    assert not consumer.takes("too late")


def test_a_closed_circuit_is_in_nobodys_way(consumer: FakeConsumer, switch: Switch) -> None:
    switch.closed = True
    consumer.connect()
    assert consumer.takes("at once")


def test_each_of_several_circuits_keeps_jobs_away(consumer: FakeConsumer, switch: Switch) -> None:
    consumer.other.closed = False
    switch.closed = True
    consumer.connect()
    assert not consumer.takes("early")
    consumer.other.switch(closed=True)
    consumer.tick()
    assert consumer.takes("later")
    consumer.other.switch(closed=False)
    switch.switch(closed=True)
    consumer.tick()
    assert not consumer.takes("too late")


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("while_away", [False, True])
def test_each_connection_follows_the_circuit_as_it_is_then(
    consumer: FakeConsumer, switch: Switch, closed: bool, while_away: bool
) -> None:
    switch.closed = not closed
    consumer.connect()
    if not while_away:
        switch.switch(closed=closed)
    consumer.disconnect()
    if while_away:
        switch.switch(closed=closed)
    # The loop may get to it while there is no connection.
    consumer.tick()
    consumer.connect()
    consumer.tick()
    assert consumer.takes("a job") is closed


@pytest.mark.parametrize("changes", [[1, 0], [1, 0, 1], [1, 1], [0, 0], [1, 0, 0, 1, 1, 0]])
@pytest.mark.parametrize("ticks", [False, True])
def test_of_quick_changes_the_last_one_counts(
    consumer: FakeConsumer, switch: Switch, changes: list[int], ticks: bool
) -> None:
    consumer.connect()
    for closed in changes:
        switch.switch(closed=bool(closed))
        if ticks:
            consumer.tick()
    consumer.tick()
    assert consumer.takes("a job") is bool(changes[-1])


def test_what_the_worker_was_told_to_consume_meanwhile_is_kept(
    consumer: FakeConsumer, switch: Switch
) -> None:
    switch.closed = True
    consumer.connect()
    switch.switch(closed=False)
    consumer.tick()
    consumer.app.amqp.queues.deselect("comfyui")
    consumer.app.amqp.queues.select_add("another")
    switch.switch(closed=True)
    consumer.tick()
    assert [queue.name for queue in consumer.task_consumer.queues] == ["another"]
    assert consumer.task_consumer.consuming_from("another")
