"""Reading ComfyUI's queue."""

from collections.abc import Mapping
from typing import Any

from workers.comfyui.model import QueuedPrompt


def read_queue(answer: Mapping[str, Any]) -> tuple[list[QueuedPrompt], list[QueuedPrompt]]:
    """The prompts that run and those that wait; those in the order in which they will run.

    Raises:
        ValueError: it is no queue; says what it is instead.
    """
    running, pending = (_prompts(answer.get(name)) for name in ("queue_running", "queue_pending"))
    # The server lists them as they lie in its heap.
    return running, sorted(pending, key=lambda prompt: prompt.number)


def _prompts(items: Any) -> list[QueuedPrompt]:
    if not isinstance(items, list):
        raise ValueError("a queue of an unknown form")  # noqa: TRY004  # it is an answer's value
    return [_prompt(item) for item in items]


def _prompt(item: Any) -> QueuedPrompt:
    # The id is the second field; the first is the prompt's number in the queue.
    match item:
        case [number, str(prompt_id), *rest]:
            workflow, extra = ([*rest, None, None])[:2]
        case _:
            raise ValueError("a queue of prompts without ids")
    client_id = extra.get("client_id") if isinstance(extra, Mapping) else None
    return QueuedPrompt(
        prompt_id,
        number if isinstance(number, int | float) else 0,
        workflow if isinstance(workflow, Mapping) else {},
        client_id if isinstance(client_id, str) else None,
    )
