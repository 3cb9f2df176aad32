"""Waiting for a prompt: the websocket wakes, the history decides."""

import time
from collections.abc import Callable
from typing import Any

from tasks.errors import JobTimeoutError, PromptLostError, TransientError
from workers.comfyui import ComfyUI, Notifications
from workers.comfyui.notifications import Subscription

# Seconds between looks at the history: rarely while messages arrive, often while they do not,
# and soon again after a message said that the prompt ended but the history does not show it yet.
POLL_CONNECTED = 5.0
POLL_DEAF = 0.5
POLL_ENDED = 0.02

# Progress is told this often; it is what wakes the waiting thread in between.
TICK = 0.5

# How long the server may be gone, or answer what it should not, before the attempt is given up.
OUTAGE_PATIENCE = 30.0


def await_entry(
    prompt_id: str,
    *,
    comfyui: ComfyUI,
    notifications: Notifications,
    subscription: Subscription,
    deadline: float | None,
    on_tick: Callable[[], None],
    adopted: bool = False,
) -> dict[str, Any]:
    """Wait until the prompt has ended and return its history entry.

    Args:
        prompt_id: of a prompt that the server has accepted.
        comfyui: where it runs.
        notifications: tells whether messages arrive at all.
        subscription: hints about this prompt.
        deadline: on the monotonic clock, in seconds; None waits for ever.
        on_tick: called at least every half second while waiting, unless the server is slow.
        adopted: whether the prompt was there before, and may have ended: then look at once.

    Raises:
        PromptLostError: the server has forgotten the prompt.
        JobTimeoutError: the deadline has passed.
        TransientError: for half a minute the server was gone or answered what it should not.
    """
    after_end = POLL_ENDED
    answered_at = time.monotonic()
    look_at = 0.0 if adopted else answered_at + _pause(notifications)
    while True:
        now = time.monotonic()
        if deadline is not None and now >= deadline:
            raise JobTimeoutError("the job was stopped: its timeout_seconds have passed")
        if now >= look_at:
            try:
                if (entry := _look(comfyui, prompt_id)) is not None:
                    return entry
                answered_at = time.monotonic()
            except PromptLostError:
                raise
            except TransientError:
                if time.monotonic() - answered_at > OUTAGE_PATIENCE:
                    raise
            now = time.monotonic()
            if subscription.progress.finished:
                look_at, after_end = now + after_end, min(2 * after_end, POLL_DEAF)
            else:
                look_at = now + _pause(notifications)
        on_tick()
        until = min(look_at, deadline if deadline is not None else look_at)
        if subscription.wait(max(0.0, min(until - time.monotonic(), TICK))):
            look_at = 0.0


def _look(comfyui: ComfyUI, prompt_id: str) -> dict[str, Any] | None:
    if (entry := comfyui.history(prompt_id)) is not None:
        return entry
    # A prompt is always either queued or in the history; between two looks it can only go from
    # the first to the second.
    if prompt_id in comfyui.queue():
        return None
    if (entry := comfyui.history(prompt_id)) is not None:
        return entry
    raise PromptLostError(
        f"ComfyUI at {comfyui.base_url} has forgotten prompt {prompt_id}: it was restarted, "
        "or somebody cleared its queue or history"
    )


def _pause(notifications: Notifications) -> float:
    return POLL_CONNECTED if notifications.connected else POLL_DEAF
