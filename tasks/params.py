"""Params, `{"6.text": "a cat"}`: which input of a workflow each of them means.

An address is the id of a node or its title, a dot, and the name of an input. A node without a title
has its class for one. Titles and the names of inputs may have dots: of several ways to read an
address an id goes before a title, and a longer one before a shorter one.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from tasks.errors import InvalidWorkflowError
from tasks.request import did_you_mean, label, shown
from tasks.workflow import Workflow, input_name, is_link, json_fault, node_name
from tasks.workflow_form import is_export

Input = tuple[str, str]
"""The id of a node and the name of an input."""

# More than titles and names of inputs have.
_MOST_DOTS = 30
_MOST_NAMED = 5
# How far links are followed to what can be set instead.
_MOST_LINKS = 20


def check_params(workflow: Workflow, params: Mapping[str, Any]) -> None:
    """Refuse params that fit a checked workflow on no server.

    Which inputs a node may have beside those that are set, and which values, is for servers to say.

    Raises:
        InvalidWorkflowError: names the param and the reason in one sentence.
    """
    if is_export(workflow):
        # Which nodes and inputs it stands for only a server can tell.
        check_form(params)
        return
    found = locate(workflow, params)
    for address, (node_id, name) in found.items():
        if is_link(workflow[node_id]["inputs"].get(name)):
            raise _is_linked(workflow, address, node_id, name)
        if is_link(params[address]):
            raise InvalidWorkflowError(
                f"param {shown(address)}: found the link {shown(params[address])}; "
                "params set values, and leave links as they are"
            )


def check_form(params: Mapping[str, Any]) -> None:
    """Refuse params that are none, whatever the workflow is.

    Raises:
        InvalidWorkflowError: names the param and the reason in one sentence.
    """
    for address, value in params.items():
        if not all(address.rpartition(".")):
            raise InvalidWorkflowError(
                f"param {shown(address)}: expected a node's id or title, a dot and the name of an "
                "input"
            )
        if fault := json_fault(address) or json_fault(value):
            raise InvalidWorkflowError(f"param {shown(address)}: {fault}")


def locate(workflow: Workflow, params: Mapping[str, Any]) -> dict[str, Input]:
    """The input that each param means.

    Raises:
        InvalidWorkflowError: it means none, or may mean several, or two mean the same one.
    """
    check_form(params)
    titles = _titles(workflow) if params else {}
    found = {address: _locate(workflow, titles, address) for address in params}
    taken: dict[Input, str] = {}
    for address, place in found.items():
        if place in taken:
            raise InvalidWorkflowError(
                f"param {shown(address)}: param {shown(taken[place])} sets the same input"
            )
        taken[place] = address
    return found


def _locate(workflow: Workflow, titles: Mapping[str, list[str]], address: str) -> Input:
    for node, name in _splits(address):
        if node in workflow:
            return node, name
    for title, name in _splits(address):
        match titles.get(title, []):
            case [node_id]:
                return node_id, name
            case [_, *_] as several:
                raise InvalidWorkflowError(
                    f"param {shown(address)}: nodes {_listed(several)} have the title "
                    f"{shown(title)}; name one of them by its id"
                )
    node, _, _ = address.rpartition(".")
    hint = _alike(node, titles) or did_you_mean(node, (*workflow, *titles))
    raise InvalidWorkflowError(f"param {shown(address)}: there is no node {shown(node)}{hint}")


def _splits(address: str) -> Iterator[tuple[str, str]]:
    """Each way to read an address, the longest node first."""
    end = len(address)
    for _ in range(_MOST_DOTS):
        end = address.rfind(".", 0, end)
        if end < 1:
            return
        yield address[:end], address[end + 1 :]


def _titles(workflow: Workflow) -> dict[str, list[str]]:
    """The nodes of each title."""
    titles = defaultdict[str, list[str]](list)
    for node_id, node in workflow.items():
        meta = node.get("_meta")
        title = meta.get("title") if isinstance(meta, Mapping) else None
        titles[title if title and isinstance(title, str) else node["class_type"]].append(node_id)
    return titles


def _alike(title: str, titles: Mapping[str, list[str]]) -> str:
    folded = title.strip().casefold()
    same = next((one for one in titles if one.strip().casefold() == folded), None)
    return f", did you mean {shown(same)}?" if same is not None else ""


def _is_linked(workflow: Workflow, address: str, node_id: str, name: str) -> InvalidWorkflowError:
    source, _ = workflow[node_id]["inputs"][name]
    instead = _instead(workflow, source)
    hint = f"set {instead} instead" if instead else "set an input there"
    return InvalidWorkflowError(
        f"param {shown(address)}: {input_name(workflow, node_id, name)}, is linked to "
        f"{node_name(workflow, source)}; {hint}"
    )


def _instead(workflow: Workflow, node_id: str) -> str:
    """The inputs that decide about a node's output, as far as that is plain."""
    for _ in range(_MOST_LINKS):
        inputs = workflow[node_id]["inputs"]
        settable = [f"{node_id}.{name}" for name, value in inputs.items() if not is_link(value)]
        if settable:
            return " or ".join(map(shown, settable)) if len(settable) <= 3 else ""
        if len(inputs) != 1:
            return ""
        ((node_id, _),) = inputs.values()
    return ""


def _listed(ids: list[str]) -> str:
    named = ", ".join(label(one) for one in ids[:_MOST_NAMED])
    return named if len(ids) <= _MOST_NAMED else f"{named} and {len(ids) - _MOST_NAMED} more"
