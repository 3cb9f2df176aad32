"""The prompts that wait, the one that runs, and the memory of those that are done."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from itertools import islice
from typing import Any

_LONGEST_HISTORY = 10000


@dataclass(order=True)
class QueuedPrompt:
    """One accepted prompt. Lower numbers run first; `front` has made the number negative."""

    number: float
    arrival: int
    prompt_id: str = field(compare=False)
    prompt: dict[str, Any] = field(compare=False)
    extra_data: dict[str, Any] = field(compare=False)
    outputs: list[str] = field(compare=False)

    @property
    def client_id(self) -> str | None:
        """The client whose websocket hears of this prompt."""
        return self.extra_data.get("client_id")

    def as_item(self) -> list[Any]:
        """The five fields of `/queue` and `/history`; the id is the second."""
        return [self.number, self.prompt_id, self.prompt, self.extra_data, self.outputs]


class PromptQueue:
    """Pending, running and finished prompts; all in memory, so a restart forgets them."""

    def __init__(self, on_change: Callable[[dict[str, Any]], None]) -> None:
        """Make an empty queue that tells `on_change` its status whenever that may have changed."""
        self._tell = on_change
        self._pending: list[QueuedPrompt] = []
        self._running: QueuedPrompt | None = None
        self._history: dict[str, dict[str, Any]] = {}
        self._arrivals = 0
        self._filled = asyncio.Event()

    @property
    def running(self) -> QueuedPrompt | None:
        """The prompt that is being executed."""
        return self._running

    def status(self) -> dict[str, Any]:
        """How many prompts are pending or running, as `status` messages and `GET /prompt` tell."""
        remaining = len(self._pending) + (self._running is not None)
        return {"exec_info": {"queue_remaining": remaining}}

    def as_json(self) -> dict[str, Any]:
        """The body of `GET /queue`; pending prompts are in no order, their numbers tell it."""
        return {
            "queue_running": [self._running.as_item()] if self._running else [],
            "queue_pending": [prompt.as_item() for prompt in self._pending],
        }

    def put(
        self,
        number: float,
        prompt_id: str,
        prompt: dict[str, Any],
        extra_data: dict[str, Any],
        outputs: list[str],
    ) -> None:
        """Queue a prompt; an id that is already there is queued once more."""
        self._arrivals += 1
        queued = QueuedPrompt(number, self._arrivals, prompt_id, prompt, extra_data, outputs)
        heappush(self._pending, queued)
        self._filled.set()
        self._changed()

    async def take(self) -> QueuedPrompt:
        """Wait for a prompt and make it the running one."""
        while not self._pending:
            self._filled.clear()
            await self._filled.wait()
        self._running = heappop(self._pending)
        self._changed()
        return self._running

    def finish(self, entry: dict[str, Any]) -> None:
        """Put the running prompt into the history."""
        if self._running is None:
            raise RuntimeError("no prompt is running")
        while len(self._history) >= _LONGEST_HISTORY:
            del self._history[next(iter(self._history))]
        # A prompt id that ran before has its latest entry, in its old place.
        self._history[self._running.prompt_id] = entry
        self._running = None
        self._changed()

    def clear(self) -> None:
        """Forget all pending prompts."""
        self._pending.clear()
        self._changed()

    def delete(self, prompt_id: str) -> None:
        """Forget the first pending prompt with this id, if there is one."""
        for queued in self._pending:
            if queued.prompt_id == prompt_id:
                self._pending.remove(queued)
                heapify(self._pending)
                self._changed()
                if not self._pending:
                    # Real servers tell it twice when the last pending prompt goes.
                    self._changed()
                return

    def history(self, max_items: int | None = None, offset: int = -1) -> dict[str, Any]:
        """A page of the history, oldest first; without an offset, the last `max_items`."""
        if offset < 0 and max_items is not None:
            offset = len(self._history) - max_items
        start = max(offset, 0)
        stop = None if max_items is None else start + max(max_items, 0)
        return dict(islice(self._history.items(), start, stop))

    def history_of(self, prompt_id: str) -> dict[str, Any]:
        """The entry under its id, or nothing when the prompt is unknown or unfinished."""
        return {prompt_id: self._history[prompt_id]} if prompt_id in self._history else {}

    def clear_history(self) -> None:
        """Forget all finished prompts."""
        self._history.clear()

    def delete_history(self, prompt_id: str) -> None:
        """Forget one finished prompt, if it is known."""
        self._history.pop(prompt_id, None)

    def _changed(self) -> None:
        self._tell(self.status())


def history_entry(
    queued: QueuedPrompt,
    outputs: Mapping[str, Any],
    meta: Mapping[str, Any],
    messages: list[list[Any]],
    *,
    completed: bool,
) -> dict[str, Any]:
    """What `/history` tells of one finished prompt; a failed one keeps what it has made."""
    return {
        "prompt": queued.as_item(),
        "outputs": dict(outputs),
        "status": {
            "status_str": "success" if completed else "error",
            "completed": completed,
            "messages": messages,
        },
        "meta": dict(meta),
    }
