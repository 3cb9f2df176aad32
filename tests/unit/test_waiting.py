"""Waiting for a prompt on a clock of its own: when to look, and when there is no hope left."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.errors import (
    ComfyUIUnavailableError,
    JobError,
    JobTimeoutError,
    PromptLostError,
    PromptStalledError,
)
from workers.comfyui.model import PromptQueue
from workers.comfyui.progress import PromptProgress
from workers.execution import waiting as module
from workers.execution.control import Control, ServerHung, WorkerLeaving
from workers.execution.waiting import (
    OUTAGE_PATIENCE,
    POLL_CONNECTED,
    POLL_DEAF,
    TICK,
    Patience,
    await_entry,
)

PROMPT = "p"
# Seconds that it takes until a websocket is connected again.
RECONNECT = 0.2
Happening = Callable[[], bool]
ENTRY = {"status": {"status_str": "success"}}
RUNS, WAITS, GONE = PromptQueue((PROMPT,), ()), PromptQueue(("q",), (PROMPT,)), PromptQueue((), ())


class Scene:
    """A server, its websocket and the one who waits, in one: nothing of it takes any time."""

    base_url = "http://gpu"

    def __init__(self) -> None:
        self.now = self.heard_at = 1000.0
        self.connected = True
        self.connected_at = self.now
        self.renewed: list[float] = []
        self.progress = PromptProgress()
        self.entry: dict[str, Any] | None = None
        self.prompts = RUNS
        self.error: JobError | None = None
        self.looks: list[float] = []
        self.troubles = 0
        self.ticks: list[bool] = []
        self.control = Control()
        self.is_heard_when_renewed = False
        # What happens when, and whether it wakes.
        self.events: list[tuple[float, Happening]] = []

    # The server

    def history(self, _: str) -> dict[str, Any] | None:
        if not self.looks or self.looks[-1] != self.passed:
            self.looks.append(self.passed)
        if self.error:
            raise self.error
        return self.entry

    def queue(self) -> PromptQueue:
        return self.prompts

    # The websocket

    def held_since(self, moment: float) -> bool:
        return self.connected and self.connected_at <= moment

    def renew(self) -> None:
        self.renewed.append(self.passed)
        self.connected_at = self.now + RECONNECT
        if self.is_heard_when_renewed:
            self.heard_at = self.connected_at

    # The subscription

    def wait(self, seconds: float) -> bool:
        until = self.now + seconds
        if self.events and self.events[0][0] + 1000.0 <= until:
            at, happen = self.events.pop(0)
            self.now = max(self.now, at + 1000.0)
            return happen()
        self.now = until
        return False

    # The waiter

    @property
    def passed(self) -> float:
        return round(self.now - 1000.0, 3)

    def trouble(self) -> None:
        self.troubles += 1

    def at(self, seconds: float, *, wakes: bool = False, **changes: Any) -> None:
        def happen() -> bool:
            for name, value in changes.items():
                setattr(self, name, value)
            return wakes

        self.events.append((seconds, happen))

    def play(
        self,
        *,
        timeout: float | None = None,
        since: float | None = None,
        stall: float = float("inf"),
        adopted: bool = False,
    ) -> dict[str, Any]:
        return await_entry(
            PROMPT,
            comfyui=self,  # type: ignore[arg-type]
            notifications=self,  # type: ignore[arg-type]
            subscription=self,  # type: ignore[arg-type]
            patience=Patience(timeout, None if since is None else 1000.0 + since, stall),
            control=self.control,
            on_tick=self.ticks.append,
            on_trouble=self.trouble,
            adopted=adopted,
        )


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    one = Scene()
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: one.now))
    return one


# When it looks


def test_it_looks_rarely_while_messages_arrive(scene: Scene) -> None:
    scene.at(12.0, entry=ENTRY)
    assert scene.play() == ENTRY
    assert scene.looks == [POLL_CONNECTED, 2 * POLL_CONNECTED, 3 * POLL_CONNECTED]


def test_without_a_websocket_it_looks_often(scene: Scene) -> None:
    scene.connected = False
    scene.at(1.7, entry=ENTRY)
    assert scene.play() == ENTRY
    assert scene.looks == [POLL_DEAF * number for number in range(1, 5)]


def test_a_hint_has_it_look_at_once(scene: Scene) -> None:
    scene.at(1.3, entry=ENTRY, wakes=True)
    assert scene.play() == ENTRY
    assert scene.looks == [1.3]


def test_a_message_of_the_end_is_believed_when_the_history_shows_it(scene: Scene) -> None:
    scene.at(1.0, wakes=True, progress=PromptProgress(finished=True))
    scene.at(1.01, entry=ENTRY)
    assert scene.play() == ENTRY
    assert scene.passed < 1.0 + POLL_DEAF


def test_an_adopted_prompt_may_have_ended_long_ago(scene: Scene) -> None:
    scene.entry = ENTRY
    assert scene.play(adopted=True) == ENTRY
    assert scene.passed == 0.0


def test_progress_is_told_twice_a_second_and_whether_the_prompt_runs(scene: Scene) -> None:
    scene.prompts = WAITS
    scene.at(6.0, prompts=RUNS)
    scene.at(12.0, entry=ENTRY)
    scene.play()
    assert len(scene.ticks) >= scene.passed / TICK
    assert not any(scene.ticks[: int(POLL_CONNECTED / TICK)])
    assert scene.ticks[-1]


# When it gives up


@pytest.mark.parametrize("by", ["a message", "the queue"])
def test_the_time_of_a_job_counts_from_when_it_begins_and_ends_to_the_moment(
    scene: Scene, by: str
) -> None:
    scene.prompts = WAITS
    # Nothing that others take counts.
    scene.at(100.0)
    if by == "a message":
        scene.at(101.0, wakes=True, progress=PromptProgress(started=True))
    else:
        scene.at(101.0, wakes=True, prompts=RUNS)
    with pytest.raises(JobTimeoutError, match="timeout_seconds have passed"):
        scene.play(timeout=7.3)
    # Which is looked for twice a second.
    assert 101.0 + 7.3 <= scene.passed <= 101.0 + 7.3 + TICK


def test_the_time_of_an_adopted_prompt_counts_from_when_it_was_submitted(scene: Scene) -> None:
    with pytest.raises(JobTimeoutError):
        scene.play(timeout=7.3, since=-4.0, adopted=True)
    assert scene.passed == 3.3


def test_what_never_begins_has_all_its_time(scene: Scene) -> None:
    scene.prompts = WAITS
    scene.at(1000.0, entry=ENTRY)
    assert scene.play(timeout=7.3) == ENTRY


def test_what_has_ended_in_time_is_collected_after_it(scene: Scene) -> None:
    scene.at(7.2, entry=ENTRY)
    assert scene.play(timeout=7.3, since=0.0) == ENTRY
    assert scene.looks == [POLL_CONNECTED, 7.3]


def test_a_server_that_does_not_answer_at_the_end_of_the_time_has_not_ended_it(
    scene: Scene,
) -> None:
    scene.at(7.2, error=ComfyUIUnavailableError("gone"))
    with pytest.raises(JobTimeoutError):
        scene.play(timeout=7.3, since=0.0)


def test_a_server_that_has_just_not_answered_is_not_asked_once_more(scene: Scene) -> None:
    scene.connected = False
    scene.at(1.0, error=ComfyUIUnavailableError("it hangs"))
    with pytest.raises(JobTimeoutError):
        scene.play(timeout=7.3, since=0.0)
    # Each question may take ten seconds.
    assert scene.looks[-1] == 7.0


def test_a_reason_to_end_comes_before_the_next_look(scene: Scene) -> None:
    scene.entry = ENTRY
    scene.control.stop(WorkerLeaving("x"))
    with pytest.raises(WorkerLeaving):
        scene.play(adopted=True)
    assert scene.looks == []


def test_a_forgotten_prompt_is_lost_and_its_server_suspected(scene: Scene) -> None:
    scene.prompts = GONE
    with pytest.raises(PromptLostError, match=f"has forgotten prompt {PROMPT}"):
        scene.play()
    assert scene.troubles == 1


def test_a_server_that_is_gone_is_waited_for_and_suspected(scene: Scene) -> None:
    scene.connected = False
    scene.error = ComfyUIUnavailableError("gone")
    scene.at(OUTAGE_PATIENCE - 1.0, error=None)
    scene.at(OUTAGE_PATIENCE, entry=ENTRY)
    assert scene.play() == ENTRY
    assert scene.troubles > 1


def test_a_server_that_stays_away_is_given_up(scene: Scene) -> None:
    scene.connected = False
    scene.error = ComfyUIUnavailableError("gone")
    with pytest.raises(ComfyUIUnavailableError):
        scene.play()
    assert OUTAGE_PATIENCE < scene.passed <= OUTAGE_PATIENCE + 2 * POLL_DEAF


def test_outages_do_not_add_up(scene: Scene) -> None:
    scene.connected = False
    for start in range(0, 100, 20):
        scene.at(start + 1.0, error=ComfyUIUnavailableError("gone"))
        scene.at(start + OUTAGE_PATIENCE - 1.0, error=None)
    scene.at(100.0, entry=ENTRY)
    assert scene.play() == ENTRY


# Stalling


STARTED = PromptProgress(started=True)


def test_a_prompt_that_shows_no_sign_of_life_has_stalled(scene: Scene) -> None:
    scene.at(1.0, progress=STARTED, heard_at=1001.0)
    with pytest.raises(PromptStalledError, match=r"no sign of life for \d+ s \(STALL_SECONDS\)"):
        scene.play(stall=60.0)
    # The queue was seen to move once: when it was first looked at.
    assert 60.0 + POLL_CONNECTED <= scene.passed <= 60.0 + POLL_CONNECTED + 2.0


def test_one_that_is_said_to_have_begun_has_stalled_whatever_the_queue_showed(
    scene: Scene,
) -> None:
    # It began just before the server fell silent: no answer has shown it running yet.
    scene.prompts = WAITS
    scene.at(1.0, progress=STARTED)
    with pytest.raises(PromptStalledError):
        scene.play(stall=60.0)
    assert scene.passed <= 60.0 + POLL_CONNECTED + 2.0


def test_one_that_waits_gives_the_owner_of_the_one_before_it_time_to_act(scene: Scene) -> None:
    scene.prompts = WAITS
    # And has not failed itself.
    with pytest.raises(ServerHung, match=r"no sign of life for \d+ s \(STALL_SECONDS\)"):
        scene.play(stall=60.0)
    assert 120.0 <= scene.passed <= 120.0 + POLL_CONNECTED + 2.0


def test_a_message_now_and_then_is_a_sign_of_life(scene: Scene) -> None:
    for at in range(50, 400, 50):
        scene.at(at, progress=STARTED, heard_at=1000.0 + at)
    scene.at(400.0, entry=ENTRY)
    assert scene.play(stall=60.0) == ENTRY


def test_other_prompts_that_begin_are_a_sign_of_life(scene: Scene) -> None:
    for at in range(50, 400, 50):
        scene.at(at, prompts=PromptQueue((str(at),), (PROMPT,)))
    scene.at(400.0, entry=ENTRY)
    assert scene.play(stall=30.0) == ENTRY


def test_other_prompts_that_are_queued_are_none(scene: Scene) -> None:
    # Whoever queues them may not know that the server hangs.
    scene.at(1.0, progress=STARTED)
    for at in range(10, 400, 10):
        scene.at(at, prompts=PromptQueue((PROMPT,), (str(at),)))
    with pytest.raises(PromptStalledError):
        scene.play(stall=60.0)
    assert scene.passed <= 60.0 + POLL_CONNECTED + 2.0


def test_after_half_of_the_silence_the_connection_is_made_anew_once(scene: Scene) -> None:
    scene.at(1.0, progress=STARTED)
    with pytest.raises(PromptStalledError):
        scene.play(stall=60.0)
    (at,) = scene.renewed
    assert 30.0 + POLL_CONNECTED <= at <= 30.0 + POLL_CONNECTED + 2.0


def test_who_hears_again_on_a_new_connection_was_only_deaf(scene: Scene) -> None:
    scene.at(1.0, progress=STARTED)
    scene.is_heard_when_renewed = True
    scene.at(400.0, entry=ENTRY)
    assert scene.play(stall=60.0) == ENTRY
    assert len(scene.renewed) > 10


def test_a_new_connection_is_listened_to_for_half_of_the_silence(scene: Scene) -> None:
    # It was cut, and came back late.
    scene.at(1.0, progress=STARTED, connected=False)
    scene.at(90.0, connected=True, connected_at=1090.0)
    with pytest.raises(PromptStalledError):
        scene.play(stall=60.0)
    assert 120.0 <= scene.passed <= 122.0


def test_a_prompt_that_runs_and_was_never_heard_to_begin_is_not_judged_by_silence(
    scene: Scene,
) -> None:
    # Such as when another client holds up the messages of all.
    scene.prompts = WAITS
    scene.at(20.0, prompts=RUNS)
    scene.at(1000.0, entry=ENTRY)
    assert scene.play(stall=60.0) == ENTRY


def test_nor_is_one_that_began_before_the_first_look(scene: Scene) -> None:
    scene.at(1000.0, entry=ENTRY)
    assert scene.play(stall=60.0) == ENTRY


def test_a_prompt_that_may_have_begun_while_nobody_listened_is_judged(scene: Scene) -> None:
    scene.prompts = WAITS
    scene.at(11.0, connected_at=1011.0)
    scene.at(12.0, prompts=RUNS)
    with pytest.raises(PromptStalledError):
        scene.play(stall=60.0)


def test_an_adopted_prompt_is_judged(scene: Scene) -> None:
    with pytest.raises(PromptStalledError):
        scene.play(stall=60.0, adopted=True)


def test_without_a_connection_nothing_was_to_be_heard(scene: Scene) -> None:
    # A proxy without websockets lies between; polling shows that it lives.
    scene.connected = False
    scene.at(1000.0, entry=ENTRY)
    assert scene.play(stall=60.0) == ENTRY
