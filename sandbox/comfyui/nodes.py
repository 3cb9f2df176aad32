"""What a node class is: its schema, as `/object_info` tells it, and its work."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sandbox.comfyui.files import Folders
from sandbox.comfyui.model_files import ModelFiles
from sandbox.comfyui.versions import Version

InputConfig = list[Any]
"""A type name, or the list of allowed values, then perhaps options: `["INT", {"min": 1}]`."""
Inputs = Mapping[str, Any]
"""The values of a node's inputs by name."""


class OutOfMemoryError(Exception):
    """The GPU is full. It passes for PyTorch's own, whose name clients look for."""


OutOfMemoryError.__module__ = "torch"


class Pace:
    """How long the steps of nodes take: as long as they say, or until they are let go."""

    def __init__(self) -> None:
        """Let all steps take their time."""
        self._permits: asyncio.Semaphore | None = None

    def let(self, steps: int | None) -> None:
        """Let so many steps go, at once, and hold all others; or None: hold no more."""
        before, self._permits = self._permits, None if steps is None else asyncio.Semaphore(steps)
        if before is not None:
            # Who is held looks again.
            before.release()

    async def step(self, seconds: float) -> None:
        """Wait for the end of a step that takes so long."""
        if self._permits is None:
            await asyncio.sleep(seconds)
            return
        while (permits := self._permits) is not None:
            await permits.acquire()
            if permits is self._permits:
                return


@dataclass(frozen=True)
class Installation:
    """What this server has, and how fast it is."""

    version: Version
    folders: Folders
    step_seconds: float
    """That a sampling step takes."""
    models: ModelFiles
    model_seconds: float = 0.0
    """That loading a model takes."""
    without_nodes: frozenset[str] = frozenset()
    """The node classes that it lacks."""
    pace: Pace = field(default_factory=Pace)


@dataclass(frozen=True)
class Call:
    """One run of a node: its inputs, and what it may use of the server and of its prompt."""

    inputs: Inputs
    installation: Installation
    prompt: Mapping[str, Any]
    extra_pnginfo: Mapping[str, Any] | None
    progress: Callable[[int, int], None]
    """Reports step `value` of `maximum`; raises when the prompt has been interrupted."""
    check: Callable[[], None]
    """Raises when the prompt has been interrupted, and tells nobody anything."""
    loads: Callable[[str], None]
    """Writes down that a model, `FOLDER/NAME`, is being loaded."""


@dataclass(frozen=True)
class Result:
    """What a node has made: a value for each of its outputs, and what it shows to the user."""

    values: tuple[Any, ...] = ()
    ui: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class NodeClass:
    """One class of node."""

    name: str
    display_name: str
    category: str
    description: str
    inputs: Callable[[], dict[str, InputConfig]]
    """The required inputs, in the order of `/object_info`; their lists may change at any time."""
    run: Callable[[Call], Awaitable[Result]]
    optional: Mapping[str, InputConfig] = field(default_factory=dict)
    """The inputs that a prompt may leave out."""
    outputs: tuple[str, ...] = ()
    output_node: bool = False
    hidden: Mapping[str, str] = field(default_factory=dict)
    python_module: str = "nodes"
    rejection: Callable[[Inputs], tuple[str, str] | None] = lambda _: None
    """An input's name and why the node refuses its value, beyond what the schema says."""
    fingerprint: Callable[[Inputs], str] = lambda _: ""
    """What the result depends on besides the inputs; a change of it makes the cache forget."""

    def all_inputs(self) -> dict[str, InputConfig]:
        """The required and the optional ones."""
        return {**self.inputs(), **self.optional}

    def object_info(self) -> dict[str, Any]:
        """The entry of this class in `/object_info`."""
        inputs: dict[str, Any] = {"required": self.inputs()}
        if self.optional:
            inputs["optional"] = dict(self.optional)
        if self.hidden:
            inputs["hidden"] = dict(self.hidden)
        return {
            "input": inputs,
            "input_order": {group: list(names) for group, names in inputs.items()},
            "output": list(self.outputs),
            "output_is_list": [False] * len(self.outputs),
            "output_name": list(self.outputs),
            "name": self.name,
            "display_name": self.display_name,
            "description": self.description,
            "python_module": self.python_module,
            "category": self.category,
            "output_node": self.output_node,
        }
