"""What a server lacks to run a workflow, found without asking it."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from tasks.request import did_you_mean, label, shown
from tasks.workflow import Workflow, is_link, node_name
from workers.nodes.inputs import InputSpec, fault_in, input_names, input_spec
from workers.routing.capabilities import Capabilities
from workers.routing.models import is_model, near_models

_MOST_SHOWN = 3


@dataclass(frozen=True)
class Lack:
    """One thing that keeps a server from running a workflow.

    Attributes:
        node_id: of the node that needs it; empty if it is not known.
        message: what is missing, in one clause that names node and input.
        is_sure: whether the server is bound to see it so; some nodes judge choices by themselves.
        node_class: that the server does not know.
        model: the file that it does not have.
    """

    node_id: str
    message: str
    is_sure: bool = True
    node_class: str = ""
    model: str = ""


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
    # One class may have thousands of choices, and a workflow thousands of its nodes.
    specs = {name: _Specs(one) if one is not None else None for name, one in classes.items()}
    for node_id, node in workflow.items():
        inputs = specs[node["class_type"]]
        if inputs is not None and node_id not in needed:
            continue
        where = node_name(workflow, node_id)
        found += [
            replace(fault, node_id=node_id, message=f"{where}{fault.message}")
            for fault in _faults(node, inputs, placed)
        ]
    return tuple(found)


def hinted(
    found: Collection[Lack],
    node_classes: Collection[str],
    models: Mapping[str, Collection[str]],
    most: int = _MOST_SHOWN,
) -> tuple[Lack, ...]:
    """The lacks, the first of them with what is nearly what they name.

    Args:
        found: in order.
        node_classes: that there are.
        models: files that there are, by folder.
        most: how many get a hint, each of which takes its time.
    """
    return tuple(
        replace(one, message=one.message + _hint(one, node_classes, models)) if n < most else one
        for n, one in enumerate(found)
    )


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


class _Specs:
    """The inputs of a class, each read once."""

    def __init__(self, node_class: Mapping[str, Any]) -> None:
        self._class = node_class
        self._read: dict[str, InputSpec | None] = {}
        self._faults: dict[tuple[str, str], Lack | None] = {}
        self.required = [
            name
            for name in input_names(node_class)
            if (spec := self.get(name)) is not None and spec.is_required
        ]

    def get(self, name: str) -> InputSpec | None:
        if name not in self._read:
            self._read[name] = input_spec(self._class, name)
        return self._read[name]

    def fault(self, spec: InputSpec, value: Any) -> Lack | None:
        """What is wrong with a value; of equal ones it is found out once."""
        if not isinstance(value, str):
            return _fault(spec, value)
        if (spec.name, value) not in self._faults:
            self._faults[spec.name, value] = _fault(spec, value)
        return self._faults[spec.name, value]


def _faults(
    node: Mapping[str, Any], specs: _Specs | None, placed: Collection[str]
) -> Iterator[Lack]:
    """What is wrong with a node, each without the node's name."""
    if specs is None:
        name = node["class_type"]
        yield Lack("", ": the server does not know its class", node_class=name)
        return
    inputs = node["inputs"]
    for name, value in inputs.items():
        spec = None if is_link(value) else specs.get(name)
        if spec is None or (isinstance(value, str) and value in placed):
            continue
        if (fault := specs.fault(spec, value)) is not None:
            yield fault
    for name in specs.required:
        if name not in inputs:
            yield Lack("", f", input {label(name)}: is required, and missing")


def _fault(spec: InputSpec, value: Any) -> Lack | None:
    if spec.choices is not None and is_model(value):
        model = value if value not in spec.choices else ""
        fault = f"the server does not have {shown(value)}" if model else None
    else:
        model, fault = "", fault_in(value, spec)
    if fault is None:
        return None
    is_sure = all(isinstance(one, str) for one in spec.choices or ())
    return Lack("", f", input {label(spec.name)}: {fault}", is_sure, model=model)


def _hint(lack: Lack, node_classes: Collection[str], models: Mapping[str, Collection[str]]) -> str:
    if lack.node_class:
        return did_you_mean(lack.node_class, node_classes)
    near = near_models(lack.model, models) if lack.model else []
    return f"; near: {', '.join(label(one) for one in near)}" if near else ""
