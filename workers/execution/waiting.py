"""Waiting for a prompt: the websocket wakes, the history decides."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from tasks.errors import JobTimeoutError, PromptLostError, PromptStalledError, TransientError
from workers.comfyui import ComfyUI, Notifications
from workers.comfyui.model import PromptQueue
from workers.comfyui.notifications import Subscription
from workers.execution.control import Control, ServerHung

# Seconds between looks at the history: rarely while messages arrive, often while they do not,
# and soon again after a message said that the prompt ended but the history does not show it yet.
POLL_CONNECTED = 5.0
POLL_DEAF = 0.5
POLL_ENDED = 0.02

# Progress is told this often; it is what wakes the waiting thread in between.
TICK = 0.5

# How long the server may be gone, or answer what it should not, before the attempt is given up.
OUTAGE_PATIENCE = 15.0

# A prompt that waits behind a stalled one gives that one's owner the time to act first.
_WAITING_FACTOR = 2.0


@dataclass(frozen=True)
class Patience:
    """How long to wait.

    Attributes:
        seconds: that the prompt may execute; None lets it execute for ever.
        since: from when they count, on the monotonic clock; None: from when it begins to execute.
        stall: seconds without any sign of life after which the prompt counts as stalled.
    """

    seconds: float | None = None
    since: float | None = None
    stall: float = float("inf")


def await_entry(
    prompt_id: str,
    *,
    comfyui: ComfyUI,
    notifications: Notifications,
    subscription: Subscription,
    patience: Patience,
    control: Control,
    on_tick: Callable[[bool], None],
    on_trouble: Callable[[], None],
    adopted: bool = False,
) -> dict[str, Any]:
    """Wait until the prompt has ended and return its history entry.

    Args:
        prompt_id: of a prompt that the server has accepted.
        comfyui: where it runs.
        notifications: tells whether messages arrive at all.
        subscription: hints about this prompt.
        patience: how long to wait.
        control: ends the waiting when there is a reason.
        on_tick: called at least every half second while waiting, unless the server is slow, with
            whether the prompt was seen running.
        on_trouble: called when the server does not answer, or not as it should.
        adopted: whether the prompt was there before, and may have ended: then look at once.

    Raises:
        PromptLostError: the server has forgotten the prompt.
        PromptStalledError: the prompt runs, and nothing was heard or seen of it for too long.
        ServerHung: the same of the prompts before it.
        JobTimeoutError: the deadline has passed.
        TransientError: for a quarter of a minute the server was gone or answered what it should
            not.
        Exception: whatever reason the control gives.
    """
    waiting = _Waiting(
        prompt_id,
        comfyui,
        notifications,
        subscription,
        patience=patience,
        on_trouble=on_trouble,
        adopted=adopted,
    )
    while True:
        control.check()
        if (entry := waiting.look()) is not None:
            return entry
        on_tick(waiting.running)
        waiting.wait()


class _Waiting:
    """When to look next, and whether there is still hope."""

    def __init__(
        self,
        prompt_id: str,
        comfyui: ComfyUI,
        notifications: Notifications,
        subscription: Subscription,
        *,
        patience: Patience,
        on_trouble: Callable[[], None],
        adopted: bool,
    ) -> None:
        self._prompt_id = prompt_id
        self._comfyui = comfyui
        self._notifications = notifications
        self._subscription = subscription
        self._patience = patience
        self._since = patience.since
        self._on_trouble = on_trouble
        self._after_end = POLL_ENDED
        self._answered_at = self._moved_at = time.monotonic()
        self._queue = PromptQueue((), ())
        self._in_trouble = False
        # When the prompt had surely not begun, and whether it has, unheard, after that.
        self._unbegun_at = float("-inf") if adopted else self._answered_at
        self._began_unheard = False
        self._look_at = 0.0 if adopted else self._answered_at + self._pause()

    @property
    def running(self) -> bool:
        """Whether the prompt was the one that runs when the queue was last seen."""
        return self._prompt_id in self._queue.running

    @property
    def _begun(self) -> bool:
        return self.running or self._subscription.progress.started

    def look(self) -> dict[str, Any] | None:
        """The entry, if it is time to look and the prompt has ended."""
        now = time.monotonic()
        deadline = self._deadline(now)
        if deadline is not None and now >= deadline:
            return self._last_look()
        if now >= self._look_at:
            if (entry := self._ask()) is not None:
                return entry
            now = time.monotonic()
            if self._subscription.progress.finished:
                self._look_at = now + self._after_end
                self._after_end = min(2 * self._after_end, POLL_DEAF)
            else:
                self._look_at = now + self._pause()
        self._check_life(now)
        return None

    def _last_look(self) -> dict[str, Any]:
        # What has ended in time, and was not collected since, is as good as ever.
        entry = None
        # A server that has just not answered would only hold up the end.
        if not self._in_trouble:
            with suppress(TransientError):
                entry = self._comfyui.history(self._prompt_id)
        if entry is None:
            raise JobTimeoutError("the job was stopped: its timeout_seconds have passed")
        return entry

    def wait(self) -> None:
        """Wait until it is time to look, or for half a second."""
        now = time.monotonic()
        until = min(self._look_at, self._deadline(now) or self._look_at)
        if self._subscription.wait(max(0.0, min(until - now, TICK))):
            self._look_at = 0.0

    def _deadline(self, now: float) -> float | None:
        if self._patience.seconds is None:
            return None
        if self._since is None and self._begun:
            self._since = now
        return None if self._since is None else self._since + self._patience.seconds

    def _ask(self) -> dict[str, Any] | None:
        asked_at = time.monotonic()
        try:
            found = _look(self._comfyui, self._prompt_id)
        except PromptLostError:
            self._on_trouble()
            raise
        except TransientError:
            self._in_trouble = True
            self._on_trouble()
            if time.monotonic() - self._answered_at > OUTAGE_PATIENCE:
                raise
            return None
        self._in_trouble = False
        if not isinstance(found, PromptQueue):
            return found
        self._answered_at = time.monotonic()
        if self._prompt_id in found.pending:
            self._unbegun_at = asked_at
        elif self._notifications.held_since(self._unbegun_at):
            # Whoever is there when a prompt begins is told so, unless nobody is told anything.
            self._began_unheard = not self._subscription.progress.started
        if found.running != self._queue.running:
            self._moved_at = self._answered_at
        self._queue = found
        return None

    def _check_life(self, now: float) -> None:
        stall = self._patience.stall * (1.0 if self._begun else _WAITING_FACTOR)
        silent = now - max(self._moved_at, self._notifications.heard_at)
        # Of a connection that is not there nothing was to be heard.
        if silent <= stall / 2 or not self._notifications.held_since(now - stall / 2):
            return
        if silent <= stall:
            # It may be open and deaf. The other half counts on a new one.
            self._notifications.renew()
        elif self._subscription.progress.started or not self._began_unheard:
            reason = (
                f"ComfyUI at {self._comfyui.base_url} showed no sign of life for {silent:.0f} s "
                "(STALL_SECONDS)"
            )
            # What runs before it may be somebody else's, who hears of it in our place.
            raise PromptStalledError(reason) if self._begun else ServerHung(reason)

    def _pause(self) -> float:
        if not self._notifications.connected:
            return POLL_DEAF
        # Of a silence that lasts too long there are some looks at each half.
        return min(POLL_CONNECTED, self._patience.stall / 4)


def _look(comfyui: ComfyUI, prompt_id: str) -> dict[str, Any] | PromptQueue:
    """The entry of the prompt if it has ended, else the queue that it is in."""
    if (entry := comfyui.history(prompt_id)) is not None:
        return entry
    # A prompt is always either queued or in the history; between two looks it can only go from
    # the first to the second.
    queue = comfyui.queue()
    if prompt_id in queue:
        return queue
    if (entry := comfyui.history(prompt_id)) is not None:
        return entry
    raise PromptLostError(
        f"ComfyUI at {comfyui.base_url} has forgotten prompt {prompt_id}: it was restarted, "
        "or somebody cleared its queue or history"
    )
