"""What a server lacks to run a workflow, found without asking it."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tasks.request import did_you_mean, label, shown
from tasks.workflow import Workflow, is_link, node_name
from workers.nodes.inputs import fault_in, input_names, input_spec
from workers.routing.capabilities import Capabilities
from workers.routing.models import is_model, near_models

_MOST_SHOWN = 3


@dataclass(frozen=True)
class Lack:
    """One thing that keeps a server from running a workflow.

    Attributes:
        node_id: of the node that needs it; empty if it is not known.
        message: what is missing, in one clause that names node, input and near matches.
        is_sure: whether the server is bound to see it so; some nodes judge choices by themselves.
    """

    node_id: str
    message: str
    is_sure: bool = True


def lacks(
    workflow: Workflow, capabilities: Capabilities, placed: Collection[str] = ()
) -> tuple[Lack, ...]:
    """What a server lacks; nothing if it can run the workflow, as far as can be told from here.

    Servers judge values by rules of their own, too: they have the last word.

    Args:
        workflow: checked, in API format.
        capabilities: of the server.
        placed: names of files that are placed on the server before the run.
    """
    found: list[Lack] = []
    classes = _classes(workflow, capabilities)
    needed = _needed(workflow, _outputs(workflow, classes))
    for node_id, node in workflow.items():
        node_class = classes[node["class_type"]]
        if node_class is not None and node_id not in needed:
            continue
        where = node_name(workflow, node_id)
        for fault, is_sure in _faults(node, node_class, capabilities, placed):
            found.append(Lack(node_id, f"{where}{fault}", is_sure))
    return tuple(found)


def would_run_in_part(workflow: Workflow, capabilities: Capabilities) -> bool:
    """Whether a server may execute a workflow in part, if it refuses another part of it.

    A prompt with one good output among bad ones is accepted (tests/fixtures/wire).
    """
    return len(_outputs(workflow, _classes(workflow, capabilities))) > 1


def told(found: Collection[Lack]) -> str:
    """Some lacks as part of a sentence."""
    shown_ones = [one.message for one in found][:_MOST_SHOWN]
    rest = len(found) - len(shown_ones)
    return "; ".join(shown_ones) + (f"; and {rest} more" if rest else "")


def _classes(workflow: Workflow, capabilities: Capabilities) -> dict[str, Mapping[str, Any] | None]:
    """What the server says of each class in the workflow, None of those that it does not know."""
    names = {node["class_type"] for node in workflow.values()}
    found = {name: capabilities.nodes.get(name) for name in names}
    return {name: one if isinstance(one, Mapping) else None for name, one in found.items()}


def _outputs(workflow: Workflow, classes: Mapping[str, Mapping[str, Any] | None]) -> list[str]:
    """The nodes that a prompt is executed for."""
    return [
        node_id
        for node_id, node in workflow.items()
        if (classes[node["class_type"]] or {}).get("output_node")
    ]


def _needed(workflow: Workflow, outputs: Collection[str]) -> set[str]:
    """The nodes that are executed: servers know the classes of all, and mind no other's inputs.

    All of them where there are no outputs: then nothing tells what is meant.
    """
    needed: set[str] = set()
    waiting = list(outputs or workflow)
    while waiting:
        node_id = waiting.pop()
        if node_id in workflow and node_id not in needed:
            needed.add(node_id)
            inputs = workflow[node_id]["inputs"].values()
            waiting.extend(value[0] for value in inputs if is_link(value))
    return needed


def _faults(
    node: Mapping[str, Any],
    node_class: Mapping[str, Any] | None,
    capabilities: Capabilities,
    placed: Collection[str],
) -> Iterator[tuple[str, bool]]:
    """Each fault, and whether it is sure."""
    if node_class is None:
        hint = did_you_mean(node["class_type"], capabilities.nodes)
        yield f": the server does not know its class{hint}", True
        return
    inputs = node["inputs"]
    for name, value in inputs.items():
        spec = None if is_link(value) else input_spec(node_class, name)
        if spec is None or (isinstance(value, str) and value in placed):
            continue
        if (fault := fault_in(value, spec)) is not None:
            if is_model(value) and spec.choices is not None:
                fault = _missing_model(value, capabilities)
            is_sure = all(isinstance(one, str) for one in spec.choices or ())
            yield f", input {label(name)}: {fault}", is_sure
    for name in input_names(node_class):
        spec = None if name in inputs else input_spec(node_class, name)
        if spec is not None and spec.is_required:
            yield f", input {label(name)}: is required, and missing", True


def _missing_model(name: str, capabilities: Capabilities) -> str:
    near = near_models(name, capabilities.models)
    hint = f"; near: {', '.join(label(one) for one in near)}" if near else ""
    return f"the server does not have {shown(name)}{hint}"
