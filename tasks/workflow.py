"""Reading a workflow: is it one, in ComfyUI's API format or as its UI saves it, and how large."""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from tasks.errors import InvalidWorkflowError
from tasks.request import is_encodable, label, shown
from tasks.workflow_form import is_export

Workflow = Mapping[str, Any]

# Far more than nodes use, far less than JSON encoders bear.
_MOST_LEVELS = 100


def check_workflow(workflow: Workflow) -> None:
    """Refuse what ComfyUI would refuse, or choke on, before anything is sent to it.

    Unknown classes and values are the server's to judge: only it knows its nodes. So is what an
    export of the UI stands for: of one it is only checked that it can be sent at all.

    Raises:
        InvalidWorkflowError: names the node, the input and the reason in one sentence.
    """
    if is_export(workflow):
        _check_export(workflow)
        return
    if not workflow:
        raise InvalidWorkflowError("the workflow is empty: it has no node")
    for node_id, node in workflow.items():
        _check_node(workflow, node_id, node)


def check_size(workflow: Workflow, max_bytes: int) -> None:
    """Refuse a checked workflow that is larger than so many bytes as JSON.

    Raises:
        InvalidWorkflowError: names both sizes, and the largest input.
    """
    size = _json_bytes(workflow)
    if size <= max_bytes:
        return
    sizes = _node_sizes(workflow) if is_export(workflow) else _input_sizes(workflow)
    largest, where = max(sizes, default=(0, "no input"))
    raise InvalidWorkflowError(
        f"the workflow has {_megabytes(size)}, at most {_megabytes(max_bytes)} are allowed "
        f"(WORKFLOW_MAX_BYTES); the largest part is {where} with {_megabytes(largest)}"
    )


def node_name(workflow: Workflow, node_id: str) -> str:
    """How messages call a node: `node 3 (KSampler)`."""
    node = workflow.get(node_id)
    class_type = node.get("class_type") if isinstance(node, Mapping) else None
    of_class = f" ({label(class_type)})" if class_type and isinstance(class_type, str) else ""
    return f"node {label(node_id)}{of_class}"


def input_name(workflow: Workflow, node_id: str, name: str) -> str:
    """How messages call an input: `node 3 (KSampler), input seed`."""
    return f"{node_name(workflow, node_id)}, input {label(name)}"


def is_link(value: object) -> bool:
    """Whether an input's value is a link, `[node id, output index]`, as ComfyUI tells them."""
    return (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], int | float)
    )


def json_fault(value: object) -> str | None:
    """What keeps a value, or a part of it, from being posted as JSON."""
    # Not by recursion: what is nested too deep is one of the faults.
    waiting = [(value, 0)]
    while waiting:
        part, depth = waiting.pop()
        if isinstance(part, float) and not math.isfinite(part):
            return "found NaN or Infinity, which JSON does not have"
        if isinstance(part, str) and not is_encodable(part):
            return f"found half of a character in {shown(part)}"
        if isinstance(part, list | dict):
            if depth == _MOST_LEVELS:
                return f"is nested deeper than {_MOST_LEVELS} levels"
            parts = [*part, *part.values()] if isinstance(part, dict) else part
            waiting.extend((one, depth + 1) for one in parts)
    return None


def _check_export(export: Workflow) -> None:
    if not export["nodes"]:
        raise InvalidWorkflowError("the workflow is empty: it has no node")
    if fault := json_fault(dict(export)):
        raise InvalidWorkflowError(f"the export of ComfyUI's UI: {fault}")


def _check_node(workflow: Workflow, node_id: str, node: object) -> None:
    if not isinstance(node, Mapping):
        raise InvalidWorkflowError(
            f"node {label(node_id)}: found {shown(node)}, expected an object"
        )
    class_type = node.get("class_type")
    if not isinstance(class_type, str) or not class_type:
        raise InvalidWorkflowError(f"node {label(node_id)}: has no class_type")
    inputs = node.get("inputs")
    if not isinstance(inputs, Mapping):
        raise InvalidWorkflowError(f"{node_name(workflow, node_id)}: has no inputs object")
    for name, value in inputs.items():
        if fault := json_fault(name) or json_fault(value):
            raise InvalidWorkflowError(f"{input_name(workflow, node_id, name)}: {fault}")
        if is_link(value) and value[0] not in workflow:
            raise InvalidWorkflowError(
                f"{input_name(workflow, node_id, name)}: "
                f"links to node {label(value[0])}, which the workflow does not have"
            )
    others = {name: value for name, value in node.items() if name != "inputs"}
    if fault := json_fault(node_id) or json_fault(others):
        raise InvalidWorkflowError(f"{node_name(workflow, node_id)}: {fault}")


def _input_sizes(workflow: Workflow) -> Iterator[tuple[int, str]]:
    for node_id, node in workflow.items():
        for name, value in node["inputs"].items():
            yield _json_bytes(value), f"{input_name(workflow, node_id, name)},"


def _node_sizes(export: Workflow) -> Iterator[tuple[int, str]]:
    for node in export["nodes"]:
        match node:
            case {"id": node_id, "type": str(class_type)}:
                yield _json_bytes(node), f"node {label(str(node_id))} ({label(class_type)}),"


def _json_bytes(value: object) -> int:
    return len(json.dumps(value, separators=(",", ":")))


def _megabytes(size: int) -> str:
    return f"{size / 1_000_000:.1f} MB"
