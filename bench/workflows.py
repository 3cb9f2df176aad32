"""Workflows that take as long as they are told, and that no cache answers."""

import itertools
import random

from bench.model import RENDER, Workflow

# Every machine can draw and encode these in a few milliseconds.
SIDE = 512

_STEP_SECONDS = 0.1
_COLOURS = 2**24


class Graphs:
    """Makes workflows for one kind of server."""

    def __init__(self, *, renders: bool) -> None:
        """Begin with a seed that no earlier benchmark has used.

        Args:
            renders: whether the servers have the node `BarsRender`. Without it a workflow is
                `EmptyImage` and `SaveImage`, and takes the time that these take.
        """
        self.renders = renders
        self._seeds = itertools.count(random.randrange(2**48))  # noqa: S311  # no secret
        self._folders = itertools.count()

    def batch_of(self, jobs: int, seconds: float, images: int = 1) -> list[Workflow]:
        """Workflows for so many jobs, their files in a folder of their own."""
        # Numbering its files, a server reads the whole folder each time.
        seed = next(self._seeds)
        prefix = f"bench/{seed:x}-{next(self._folders)}/image"
        return [self._workflow(next(self._seeds), seconds, images, prefix) for _ in range(jobs)]

    def _workflow(self, seed: int, seconds: float, images: int, prefix: str) -> Workflow:
        size = {"width": SIDE, "height": SIDE, "batch_size": images}
        steps = max(2, round(seconds / _STEP_SECONDS))
        render = {"seconds": seconds, "steps": steps, "seed": seed, "mode": "ok", **size}
        plain = {"color": seed % _COLOURS, **size}
        return {
            "1": {
                "class_type": RENDER if self.renders else "EmptyImage",
                "inputs": render if self.renders else plain,
            },
            "2": {
                "class_type": "SaveImage",
                "inputs": {"images": ["1", 0], "filename_prefix": prefix},
            },
        }
