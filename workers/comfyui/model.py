"""What ComfyUI speaks of: files on the server, and its queue."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any


@dataclass(frozen=True)
class FileRef:
    """A file on the server, as ComfyUI names files."""

    filename: str
    subfolder: str = ""
    type: str = "output"


class PromptState(Enum):
    """What a server knows of a prompt."""

    UNKNOWN = "unknown"
    QUEUED = "queued"
    """It waits or runs."""
    ENDED = "ended"


@dataclass(frozen=True)
class QueuedPrompt:
    """A prompt that runs or waits.

    Attributes:
        prompt_id: of the prompt.
        number: its place among those that wait: the lowest runs first.
        workflow: API format, as far as the server was given one.
        client_id: the websocket client that hears of it; None if none was named.
    """

    prompt_id: str
    number: float
    workflow: Mapping[str, Any]
    client_id: str | None


@dataclass(frozen=True)
class PromptQueue:
    """The ids of the prompts that the server runs and of those that wait, in order."""

    running: tuple[str, ...]
    pending: tuple[str, ...]

    def __contains__(self, prompt_id: object) -> bool:
        return prompt_id in self.running or prompt_id in self.pending
