"""Setting a job's params in its workflow, as the classes of its nodes have their inputs."""

import hashlib
from collections.abc import Mapping
from typing import Any

from tasks.errors import InvalidWorkflowError
from tasks.params import check_params, locate
from tasks.request import did_you_mean, shown
from tasks.workflow import Workflow, check_workflow, input_name, node_name
from workers.nodes.inputs import InputSpec, input_names, input_spec
from workers.nodes.values import read_value

RANDOM = "random"

ObjectInfo = Mapping[str, Any]
"""Class to what `/object_info` says of it."""

_SEEDS = ("seed", "noise_seed")
# Programs in JavaScript read the result, too: beyond this their numbers have gaps.
_LARGEST_SEED = 2**53 - 1


def apply_params(
    workflow: Workflow, params: Mapping[str, Any], object_info: ObjectInfo, job_id: str
) -> dict[str, Any]:
    """A copy of a checked workflow with its params set, each as its input's type has it.

    `random` for a seed becomes a number made of the job's id and the input, so that it is the same
    however often the job is begun. A value that does not fit is set as it is; `check_values` finds
    it. Of a class that the server does not have nothing is known: there values stay as they are.

    Raises:
        InvalidWorkflowError: a param fits the workflow on no server.
    """
    check_params(workflow, params)
    changed = dict(workflow)
    for address, (node_id, name) in locate(workflow, params).items():
        # Copied once, however many of its inputs are set.
        if changed[node_id] is workflow[node_id]:
            changed[node_id] = {**workflow[node_id], "inputs": dict(workflow[node_id]["inputs"])}
        node_class = _class_of(workflow, node_id, object_info)
        spec = input_spec(node_class, name) if node_class is not None else None
        value = params[address]
        if value == RANDOM and _is_seed(spec, name):
            value = _seed(f"{job_id}:{node_id}.{name}", spec)
        elif spec is not None:
            value, _ = read_value(value, spec)
        # As the UI has it: a server takes a bare list for a link.
        changed[node_id]["inputs"][name] = {"__value__": value} if type(value) is list else value
    return changed


def check_values(workflow: Workflow, params: Mapping[str, Any], object_info: ObjectInfo) -> None:
    """Refuse params that this server does not take for a checked workflow; another one may.

    Raises:
        InvalidWorkflowError: names the param, the input, what was found and what is expected.
    """
    for address, (node_id, name) in locate(workflow, params).items():
        node_class = _class_of(workflow, node_id, object_info)
        if node_class is None:
            continue
        spec, value = input_spec(node_class, name), params[address]
        if spec is not None:
            random = value == RANDOM and _is_seed(spec, name)
            _, fault = (value, None) if random else read_value(value, spec)
            where = input_name(workflow, node_id, name)
        else:
            fault = _unknown(workflow, node_id, name, node_class)
            where = node_name(workflow, node_id)
        if fault is not None:
            raise InvalidWorkflowError(f"param {shown(address)}: {where}: {fault}")


def seeds_in(
    executed: Mapping[str, Any], workflow: Workflow, params: Mapping[str, Any]
) -> dict[str, int]:
    """The seeds that params which are `random` became: `3.seed` to its number.

    Args:
        executed: the workflow as the server tells it that has executed it.
        workflow: the same as it was submitted, for what the server does not tell; empty if that is
            not known here.
        params: of the job.
    """
    wanted = {address: value for address, value in params.items() if value == RANDOM}
    if not wanted:
        return {}
    known = workflow or executed
    try:
        check_workflow(known)
        found = locate(known, wanted)
    except InvalidWorkflowError:
        # It is rendered, and does not fail for what is told of it.
        return {}
    seeds = {}
    for node_id, name in found.values():
        match executed.get(node_id, known[node_id]):
            case {"inputs": Mapping() as inputs} if type(value := inputs.get(name)) is int:
                seeds[f"{node_id}.{name}"] = value
    return seeds


def _class_of(
    workflow: Workflow, node_id: str, object_info: ObjectInfo
) -> Mapping[str, Any] | None:
    node_class = object_info.get(workflow[node_id]["class_type"])
    return node_class if isinstance(node_class, Mapping) else None


def _unknown(
    workflow: Workflow, node_id: str, name: str, node_class: Mapping[str, Any]
) -> str | None:
    inputs = workflow[node_id]["inputs"]
    if name in inputs:
        # Such as a button of the UI, which is sent along.
        return None
    hint = did_you_mean(name, dict.fromkeys((*input_names(node_class), *inputs)))
    return f"has no input {shown(name)}{hint}"


def _is_seed(spec: InputSpec | None, name: str) -> bool:
    if spec is None:
        return name in _SEEDS
    named = name in _SEEDS or bool(spec.options.get("control_after_generate"))
    return named and "INT" in spec.types


def _seed(text: str, spec: InputSpec | None) -> int:
    """A number in the input's range that is the same for the same text."""
    lowest = _bound(spec.minimum if spec else None, 0)
    highest = _bound(spec.maximum if spec else None, _LARGEST_SEED)
    # Below zero seeds mean something else to the nodes that take them.
    low, high = max(lowest, 0), min(highest, _LARGEST_SEED)
    if low > high:
        low, high = lowest, highest
    digest = hashlib.sha256(text.encode()).digest()
    return low + int.from_bytes(digest) % max(1, high - low + 1)


def _bound(given: float | None, default: int) -> int:
    return default if given is None else int(given)
