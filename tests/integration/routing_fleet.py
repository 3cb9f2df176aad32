"""Servers that differ, a worker each, and jobs that some of them can run and some cannot."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from celery.result import AsyncResult

from cli.graphs import text_to_image
from sandbox.processes import ChildProcess
from sandbox.stack import StandIn
from tests.faults.scenes import Fleet
from tests.stack import Workflow, bars

SHARED, ONLY_OLD, ONLY_NEW, ONLY_LATE = (
    f"{name}.safetensors" for name in ("shared", "old", "new", "late")
)
"""Checkpoints: of both servers, of one of them, and of none until another joins."""
HALF, EIGHTH = "flux1-dev.safetensors", "flux1-dev-fp8.safetensors"
"""One diffusion model as two files: the first on the old server, the second on the new one."""
NEW_SAMPLER = "exp_heun_2_x0"
"""A sampler that 0.8.0 has and 0.3.64 has not."""


@dataclass(frozen=True)
class Place:
    """A server and the worker that drives it."""

    name: str
    server: StandIn
    worker: ChildProcess


class RoutingFleet:
    """Two places, `old` and `new`, on a broker of their own; more may join.

    Attributes:
        fleet: their broker, client and object store.
        settings: of every worker that is started from then on, beside those of the fleet.
    """

    def __init__(self, fleet: Fleet, **settings: str) -> None:
        self.fleet = fleet
        self.settings = settings
        self.places: dict[str, Place] = {}
        self.join("old", version="0.3.64", models=_OLD_MODELS, without_nodes=["ImageInvert"])
        self.join("new", version="0.8.0", models=_NEW_MODELS, without_nodes=["BarsRender"])

    def join(self, name: str, **options: Any) -> Place:
        """Start a server with options of `StandIn`, and a worker that takes jobs."""
        server = self.fleet.server(**options)
        place = Place(name, server, self.fleet.worker(server, **self.settings))
        self.places[name] = place
        return place

    def leave(self, name: str) -> None:
        """Stop a worker in order, then its server."""
        place = self.places.pop(name)
        place.worker.stop()
        place.server.stop()

    def submit(self, workflow: Workflow, **options: Any) -> AsyncResult:
        """Enqueue a job; options are those of `Client.send`."""
        return self.fleet.send(workflow, **options)

    def where(self, job: AsyncResult, seconds: float = 30.0) -> str:
        """Wait for a job's result: the name of the place that it ran at."""
        return self.name_of(job.get(timeout=seconds)["instance"])

    def name_of(self, instance: str) -> str:
        """The place that a result or an attempt names by its URL."""
        return {place.server.url: name for name, place in self.places.items()}[instance]

    def attempts(self, job: AsyncResult) -> list[str]:
        """The places of all attempts of a job that succeeded, in order."""
        return [self.name_of(attempt["instance"]) for attempt in job.result["attempts"]]

    def executions(self) -> dict[str, int]:
        """How many executions each place has begun."""
        return {
            name: sum(place.server.executions().values()) for name, place in self.places.items()
        }


@dataclass(frozen=True)
class Case:
    """A kind of job and the places that can run it."""

    workflow: Callable[[int], Workflow]
    """Of a seed, so that no cache answers it."""
    places: frozenset[str]


def painted(seed: int, checkpoint: str = SHARED, sampler: str = "euler") -> Workflow:
    """A small text-to-image graph of one step."""
    workflow = text_to_image(checkpoint, "a cat", seed=seed)
    workflow["3"]["inputs"] |= {"steps": 1, "sampler_name": sampler}
    workflow["5"]["inputs"] |= {"width": 64, "height": 64}
    return workflow


def diffused(seed: int, model: str) -> Workflow:
    """The same with model, text encoder and VAE each from a loader of its own."""
    workflow = painted(seed)
    workflow["4"] = {
        "class_type": "UNETLoader",
        "inputs": {"unet_name": model, "weight_dtype": "default"},
    }
    workflow["10"] = {
        "class_type": "CLIPLoader",
        "inputs": {"clip_name": "t5xxl.safetensors", "type": "sd3"},
    }
    workflow["11"] = {"class_type": "VAELoader", "inputs": {"vae_name": "ae.safetensors"}}
    for node_id in ("6", "7"):
        workflow[node_id]["inputs"]["clip"] = ["10", 0]
    workflow["8"]["inputs"]["vae"] = ["11", 0]
    return workflow


def styled(seed: int, lora: str) -> Workflow:
    """A text-to-image graph with a LoRA between checkpoint and sampler."""
    workflow = painted(seed)
    inputs = {"model": ["4", 0], "clip": ["4", 1], "lora_name": lora}
    workflow["10"] = {
        "class_type": "LoraLoader",
        "inputs": {**inputs, "strength_model": 1, "strength_clip": 1},
    }
    workflow["3"]["inputs"]["model"] = ["10", 0]
    return workflow


def inverted(seed: int) -> Workflow:
    """A picture of one colour, and its negative saved."""
    size = {"width": 64, "height": 64, "batch_size": 1}
    return {
        "1": {"class_type": "EmptyImage", "inputs": {**size, "color": seed}},
        "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "3": {
            "class_type": "SaveImage",
            "inputs": {"images": ["2", 0], "filename_prefix": "routing"},
        },
    }


def unknown(seed: int) -> Workflow:
    """A graph with a node that no server has."""
    workflow = inverted(seed)
    workflow["2"]["class_type"] = "ImageInvertPlus"
    return workflow


_COMMON = (
    f"checkpoints/{SHARED}",
    "text_encoders/t5xxl.safetensors",
    "vae/ae.safetensors",
)
_OLD_MODELS = (
    *_COMMON,
    f"checkpoints/{ONLY_OLD}",
    f"diffusion_models/{HALF}",
    "loras/film/grain.safetensors",
)
_NEW_MODELS = (*_COMMON, f"checkpoints/{ONLY_NEW}", f"diffusion_models/{EIGHTH}")

_BOTH, _OLD, _NEW, _NONE = (frozenset(names) for names in (("old", "new"), ("old",), ("new",), ()))
CASES: Mapping[str, Case] = {
    "any server": Case(painted, _BOTH),
    "a node of the old one": Case(bars, _OLD),
    "a node of the new one": Case(inverted, _NEW),
    "a checkpoint of the old one": Case(lambda seed: painted(seed, ONLY_OLD), _OLD),
    "a checkpoint of the new one": Case(lambda seed: painted(seed, ONLY_NEW), _NEW),
    "a diffusion model of the old one": Case(lambda seed: diffused(seed, HALF), _OLD),
    "another quantisation, of the new one": Case(lambda seed: diffused(seed, EIGHTH), _NEW),
    "a LoRA in a folder of the old one": Case(
        lambda seed: styled(seed, "film/grain.safetensors"), _OLD
    ),
    "a sampler of 0.8.0": Case(lambda seed: painted(seed, SHARED, NEW_SAMPLER), _NEW),
    "a node of none": Case(unknown, _NONE),
    "a checkpoint of none": Case(lambda seed: painted(seed, ONLY_LATE), _NONE),
    "a checkpoint as a diffusion model": Case(lambda seed: diffused(seed, SHARED), _NONE),
    "a node and a sampler of different ones": Case(
        lambda seed: {
            **painted(seed, SHARED, NEW_SAMPLER),
            **{f"b{node_id}": _prefixed(node) for node_id, node in bars(seed).items()},
        },
        _NONE,
    ),
}
"""By what a job needs."""


def _prefixed(node: Mapping[str, Any]) -> dict[str, Any]:
    links = {
        name: [f"b{value[0]}", value[1]] if isinstance(value, list) else value
        for name, value in node["inputs"].items()
    }
    return {**node, "inputs": links}
