"""What ComfyUI speaks of: files on the server, and its queue."""

from dataclasses import dataclass
from enum import Enum


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
class PromptQueue:
    """The ids of the prompts that the server runs and of those that wait, in order."""

    running: tuple[str, ...]
    pending: tuple[str, ...]

    def __contains__(self, prompt_id: object) -> bool:
        return prompt_id in self.running or prompt_id in self.pending
