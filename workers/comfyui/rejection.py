"""Reading ComfyUI's refusal of a prompt: one sentence with node, input and reason.

Bodies are recorded in tests/fixtures/wire, scenario "rejected prompts".
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from tasks.request import label, shown
from tasks.workflow import Workflow, node_name

_MOST_FAULTS = 3
_MOST_CHARACTERS = 240
_NODE_ID = re.compile(r"^Node ID '#(?P<id>.*)'$")


def describe_rejection(workflow: Workflow, body: Any) -> str:
    """Why ComfyUI refused the workflow, in one sentence for the person who sent it.

    Args:
        workflow: what was posted; it names the nodes.
        body: the answer's JSON, of whatever shape.
    """
    error = body.get("error") if isinstance(body, Mapping) else None
    node_errors = body.get("node_errors") if isinstance(body, Mapping) else None
    faults = list(_node_faults(workflow, node_errors))
    if not faults:
        faults = [_prompt_fault(workflow, error)]
    rest = len(faults) - _MOST_FAULTS
    more = f"; and {rest} more" if rest > 0 else ""
    return "ComfyUI refuses the workflow: " + "; ".join(faults[:_MOST_FAULTS]) + more


def _node_faults(workflow: Workflow, node_errors: Any) -> Iterator[str]:
    for node_id, report in _items(node_errors):
        errors = report.get("errors") if isinstance(report, Mapping) else None
        for error in errors if isinstance(errors, list) else ():
            if isinstance(error, Mapping):
                yield _node_fault(workflow, node_id, error)


def _node_fault(workflow: Workflow, node_id: str, error: Mapping[str, Any]) -> str:
    extra = error.get("extra_info")
    name = _string(extra.get("input_name")) if isinstance(extra, Mapping) else ""
    where = node_name(workflow, node_id) + (f", input {label(name)}" if name else "")
    message, details = _text(error.get("message")), _text(error.get("details"))
    # For a single value ComfyUI's details repeat only the input's name.
    reason = f"{message} ({details})" if details and details != name else message
    return f"{where}: {reason}"


def _prompt_fault(workflow: Workflow, error: Any) -> str:
    if not isinstance(error, Mapping):
        return _text(error) or "no reason given"
    message, details = _text(error.get("message")), _text(error.get("details"))
    extra = error.get("extra_info")
    node_id = extra.get("node_id") if isinstance(extra, Mapping) else None
    if node_id is None and (found := _NODE_ID.match(details)):
        node_id = found["id"]
    if node_id is not None:
        return f"{node_name(workflow, _string(node_id))}: {message}"
    return f"{message} ({details})" if details and details != message else message


def _items(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        yield from value.items()


def _string(value: Any) -> str:
    return value if isinstance(value, str) else shown(value) if value else ""


def _text(value: Any) -> str:
    return label(_string(value), _MOST_CHARACTERS).rstrip(".")
