"""What ComfyUI speaks of: files on the server, its queue, and what a prompt has made."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
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


@dataclass(frozen=True)
class SavedFile:
    """A file that a node made, on this machine.

    Attributes:
        node_id: of the node.
        kind: the list that the node put it in: images, gifs, audio, ...
        path: where it is.
    """

    node_id: str
    kind: str
    path: Path


@dataclass(frozen=True)
class Execution:
    """A workflow that was executed.

    Attributes:
        prompt_id: under which the server's history has it.
        files: what its nodes made, saved.
        values: what nodes showed that is no file: node id to name to value.
    """

    prompt_id: str
    files: tuple[SavedFile, ...]
    values: Mapping[str, Mapping[str, Any]]
