"""What websocket messages say of one prompt, folded into a value.

Message types and fields are recorded in tests/fixtures/wire.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import Any

from tasks.request import is_encodable
from tasks.workflow import Workflow

# More steps than any sampler takes, more nodes than any workflow has.
_MOST_STEPS = 1_000_000_000
_MOST_NODES = 10_000
_MOST_NAME = 1000


@dataclass(frozen=True)
class PromptProgress:
    """How far a prompt is, as far as the server said.

    Of each node that has executed: how long it took, and when it first began, by the clock that
    `fold` is given.
    """

    done: frozenset[str] = frozenset()
    node_id: str | None = None
    step: int | None = None
    steps: int | None = None
    node_seconds: Mapping[str, float] = field(default_factory=dict)
    node_began: Mapping[str, float] = field(default_factory=dict)
    node_since: float = 0.0
    started: bool = False
    finished: bool = False

    def share(self, workflow: Workflow) -> float:
        """The share of the workflow's nodes that is done, 0 to 1; steps count in part."""
        running = (self.step or 0) / self.steps if self.steps else 0.0
        part = min(1.0, max(0.0, running))
        return min(1.0, (len(self.done & workflow.keys()) + part) / max(1, len(workflow)))


def fold(  # noqa: PLR0911  # one return a message type
    progress: PromptProgress, kind: str, data: Mapping[str, Any], now: float
) -> PromptProgress:
    """The progress after one message about this prompt.

    Args:
        progress: what was known before.
        kind: the message's `type`.
        data: its `data`, of whatever shape.
        now: seconds on a monotonic clock, for the time that each node takes.
    """
    match kind, data:
        case "execution_start", _:
            return replace(progress, started=True)
        case "execution_cached", {"nodes": list(nodes)}:
            more = (node for node in nodes if _is_node_id(node))
            done = frozenset(islice(chain(progress.done, more), _MOST_NODES))
            return replace(progress, started=True, done=done)
        case "executing", {"node": None}:
            return replace(_node_ended(progress, now), finished=True)
        case "executing", {"node": node} if (
            _is_node_id(node) and len(progress.node_seconds) < _MOST_NODES
        ):
            ended = _node_ended(progress, now)
            return replace(ended, started=True, node_id=node, node_since=now)
        case "progress", {"value": value, "max": steps} if _is_count(value) and _is_count(steps):
            here = replace(progress, started=True, step=int(value), steps=int(steps))
            # Who begins to listen in the middle of a node hears of it only by these.
            node = data.get("node")
            if progress.node_id is None and _is_node_id(node):
                return replace(here, node_id=node, node_since=now)
            return here
        case (("execution_success" | "execution_error" | "execution_interrupted"), _):
            return replace(_node_ended(progress, now), finished=True)
        case _:
            return progress


def _is_node_id(value: Any) -> bool:
    # Progress and result show it.
    return isinstance(value, str) and len(value) <= _MOST_NAME and is_encodable(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int | float) and 0 <= value <= _MOST_STEPS


def _node_ended(progress: PromptProgress, now: float) -> PromptProgress:
    if progress.node_id is None:
        return progress
    seconds = progress.node_seconds.get(progress.node_id, 0.0) + now - progress.node_since
    return replace(
        progress,
        done=progress.done | {progress.node_id},
        node_id=None,
        step=None,
        steps=None,
        node_seconds={**progress.node_seconds, progress.node_id: round(seconds, 3)},
        node_began={
            **progress.node_began,
            progress.node_id: progress.node_began.get(progress.node_id, progress.node_since),
        },
    )
