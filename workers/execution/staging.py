"""Staging: a job's workflow is checked and changed to what its server is sent."""

import logging
from collections.abc import Callable, Collection, Mapping
from typing import Any

from tasks.errors import JobError
from tasks.workflow import Workflow
from workers.execution.control import Control
from workers.execution.job import Job, Start
from workers.execution.node_policy import NodePolicy
from workers.execution.preparation import prepare
from workers.inputs import Inputs

logger = logging.getLogger(__name__)

_ALL_NODES = NodePolicy()

# An input that no node has. It changes what the server's cache knows a node by, and nothing else.
_BYPASS = "comfyfleet_attempt"


class Staging:
    """Makes workflows ready for one server, and the server ready for them. Thread-safe."""

    def __init__(
        self,
        *,
        inputs: Inputs,
        refuse_parts: Callable[[Workflow, Collection[str]], None],
        object_info: Callable[[], Mapping[str, Any]],
        workflow_max_bytes: int,
        nodes: NodePolicy = _ALL_NODES,
    ) -> None:
        """Take what it works with.

        Args:
            inputs: places input files.
            refuse_parts: raises InvalidWorkflowError for what the server would execute a part of.
            object_info: what the server says of its node classes.
            workflow_max_bytes: size of a workflow as JSON above which it is refused.
            nodes: which classes a workflow may use.
        """
        self._inputs = inputs
        self._refuse_parts = refuse_parts
        self._object_info = object_info
        self._workflow_max_bytes = workflow_max_bytes
        self._nodes = nodes

    def stage(self, job: Job, control: Control) -> dict[str, Any]:
        """The workflow as it is submitted: checked, with params set and inputs placed.

        Raises:
            JobError: it cannot be run, or not now.
            Exception: whatever reason the control gives to end.
        """
        if job.start is not Start.SUBMIT:
            try:
                return self._workflow(job)
            except JobError as error:
                # What is executed already needs it for messages only.
                logger.info("its nodes' classes are not known: %s", error)
                return {}
        workflow = self._workflow(job)
        self._refuse_parts(workflow, job.request.inputs)
        placed = self._inputs.place(workflow, job.request.inputs, control.check)
        return _bypassing(placed, job)

    def _workflow(self, job: Job) -> dict[str, Any]:
        return prepare(
            job.request,
            job.id,
            job.enqueued_at,
            # Of what another server has executed this one need not know the classes.
            dict if job.start is Start.COLLECT else self._object_info,
            max_bytes=self._workflow_max_bytes,
            nodes_allowed=self._nodes,
            is_submitted=job.start is not Start.SUBMIT,
        )


def _bypassing(workflow: Workflow, job: Job) -> dict[str, Any]:
    """The workflow with inputs that make the server execute some nodes whatever it has cached."""
    return {
        node_id: {**node, "inputs": {**node["inputs"], _BYPASS: str(job.number)}}
        if node_id in job.bypass
        else node
        for node_id, node in workflow.items()
    }
