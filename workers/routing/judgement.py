"""Whether a server can run a job, and with which models: a function of values."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from tasks.errors import InvalidWorkflowError
from tasks.workflow import Workflow
from workers.routing.capabilities import Capabilities
from workers.routing.lacks import Lack, lacks
from workers.routing.models import models_key

# Makes the workflow that a server with such node classes would be sent.
Prepare = Callable[[Mapping[str, Any]], Workflow]


@dataclass(frozen=True)
class Judgement:
    """What became known of a job and a server.

    Attributes:
        lacks: what the server lacks to run it.
        models: names those that take long to load; empty if there are none.
    """

    lacks: tuple[Lack, ...]
    models: str = ""

    @property
    def able(self) -> bool:
        """Whether the server can run the job, as far as can be told."""
        return not self.lacks


def judge(prepare: Prepare, capabilities: Capabilities, placed: Collection[str] = ()) -> Judgement:
    """Judge a job by what a server can do.

    Args:
        prepare: raises InvalidWorkflowError for what that server's nodes cannot be.
        capabilities: of the server.
        placed: names of files that are placed on the server before the run.
    """
    try:
        workflow = prepare(capabilities.nodes)
    except InvalidWorkflowError as error:
        return Judgement((Lack("", error.message),))
    return Judgement(
        lacks(workflow, capabilities, placed), models_key(workflow, capabilities.models)
    )
