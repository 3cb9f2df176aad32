"""Is a prompt fit to run? The verdict and the wording of `POST /prompt`, as recorded.

Source: `tests/fixtures/wire`, scenario "rejected prompts", and a running 0.3.64.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from traceback import format_tb
from typing import Any

from sandbox.comfyui.nodes import InputConfig, NodeClass

Error = dict[str, Any]

_CONVERSIONS: Mapping[str, Callable[[Any], Any]] = {
    "INT": int,
    "FLOAT": float,
    "STRING": str,
    "BOOLEAN": bool,
}
_LONGEST_LIST_TOLD = 20


class CycleError(Exception):
    """A node depends on itself. Real servers reject it without saying which."""


@dataclass(frozen=True)
class Verdict:
    """What `POST /prompt` answers: `error` when nothing can run, and `node_errors` in any case."""

    outputs: list[str]
    """The output nodes that will run."""
    error: Error | None = None
    node_errors: dict[str, Any] = field(default_factory=dict)


def validate(prompt: dict[str, Any], classes: Mapping[str, NodeClass]) -> Verdict:
    """Judge a prompt, and convert its values in place: seconds 8 become 8.0.

    A prompt with one good output is accepted; the errors of the other outputs are told along.

    Raises:
        TypeError: The prompt is no object of objects; real servers answer 500, and so do we.
    """
    outputs = []
    for node_id, node in prompt.items():
        if "class_type" not in node:
            message = "Cannot execute because a node is missing the class_type property."
            return Verdict([], _error("invalid_prompt", message, f"Node ID '#{node_id}'"))
        if node["class_type"] not in classes:
            message = f"Cannot execute because node {node['class_type']} does not exist."
            return Verdict([], _error("invalid_prompt", message, f"Node ID '#{node_id}'"))
        if classes[node["class_type"]].output_node:
            outputs.append(node_id)
    if not outputs:
        return Verdict([], _error("prompt_no_outputs", "Prompt has no outputs"))

    nodes = _Nodes(prompt, classes)
    checked = {output: nodes.check_output(output) for output in outputs}
    failed = {output: errors for output, errors in checked.items() if errors is not None}
    node_errors = nodes.errors_of(list(failed))
    if len(failed) == len(outputs):
        details = "\n".join(_tell(error) for errors in failed.values() for error in errors)
        message = "Prompt outputs failed validation"
        error = _error("prompt_outputs_failed_validation", message, details)
        return Verdict([], error, node_errors)
    return Verdict([output for output in outputs if output not in failed], None, node_errors)


class _Nodes:
    """The walk from outputs to inputs, which remembers what it found at each node."""

    def __init__(self, prompt: dict[str, Any], classes: Mapping[str, NodeClass]) -> None:
        self._prompt = prompt
        self._classes = classes
        self._valid: dict[str, bool] = {}
        self._errors: dict[str, list[Error]] = {}
        self._under_way: set[str] = set()

    def check_output(self, node_id: str) -> list[Error] | None:
        """The errors of an output node itself; none of its own when its ancestors are at fault.

        Returns:
            `None` when it is fit to run.
        """
        try:
            return None if self._check(node_id) else self._errors.get(node_id, [])
        except CycleError:
            return []
        except Exception as error:  # noqa: BLE001 - real servers tell any exception
            told = _error(
                "exception_during_validation",
                "Exception when validating node",
                str(error),
                _exception_info(error),
            )
            self._errors[node_id] = [told]
            return [told]

    def errors_of(self, outputs: list[str]) -> dict[str, Any]:
        """The `node_errors`: each faulty node, its errors, and the failed outputs that need it."""
        ancestors = {output: self._ancestors(output) for output in outputs}
        return {
            node_id: {
                "errors": errors,
                "dependent_outputs": [o for o in outputs if node_id in ancestors[o]],
                "class_type": self._prompt[node_id]["class_type"],
            }
            for node_id, errors in self._errors.items()
            if errors and any(node_id in found for found in ancestors.values())
        }

    def _check(self, node_id: str) -> bool:
        if node_id in self._valid:
            return self._valid[node_id]
        if node_id in self._under_way:
            raise CycleError(node_id)
        self._under_way.add(node_id)
        node = self._prompt[node_id]
        node_class = self._classes[node["class_type"]]
        values = node["inputs"]
        errors: list[Error] = []
        ancestors_valid = True
        for name, config in node_class.all_inputs().items():
            if name not in values and name in node_class.optional:
                continue
            if name not in values:
                message = "Required input is missing"
                told = {"input_name": name}
                errors.append(_error("required_input_missing", message, name, told))
            elif isinstance(values[name], list):
                wrong = self._check_link(name, config, values[name])
                errors += wrong
                if not wrong:
                    ancestors_valid &= self._check_source(name, config, values[name])
            else:
                errors += convert(name, config, values)
        if not errors and (rejection := node_class.rejection(values)):
            name, reason = rejection
            message, told = "Custom validation failed for node", {"input_name": name}
            errors.append(_error("custom_validation_failed", message, f"{name} - {reason}", told))
        self._errors[node_id] = errors
        self._valid[node_id] = not errors and ancestors_valid
        return self._valid[node_id]

    def _check_link(self, name: str, config: InputConfig, link: list[Any]) -> list[Error]:
        if len(link) != 2:
            message = "Bad linked input, must be a length-2 list of [node_id, slot_index]"
            told = _input_info(name, config, received_value=link)
            return [_error("bad_linked_input", message, name, told)]
        source, slot = link
        received = self._classes[self._prompt[source]["class_type"]].outputs[slot]
        expected = config[0]
        if expected in ("*", received):
            return []
        return [
            _error(
                "return_type_mismatch",
                "Return type mismatch between linked nodes",
                f"{name}, received_type({received}) mismatch input_type({expected})",
                _input_info(name, config, received_type=received, linked_node=link),
            )
        ]

    def _check_source(self, name: str, config: InputConfig, link: list[Any]) -> bool:
        source = link[0]
        try:
            return self._check(source)
        except CycleError:
            raise
        except Exception as error:  # noqa: BLE001 - real servers tell any exception
            info = _exception_info(error)
            told = _error(
                "exception_during_inner_validation",
                "Exception when validating inner node",
                str(error),
                _input_info(name, config, exception_message=str(error), **info, linked_node=link),
            )
            self._valid[source] = False
            self._errors[source] = [told]
            return False

    def _ancestors(self, node_id: str) -> set[str]:
        found: set[str] = set()
        waiting = [node_id]
        while waiting:
            current = waiting.pop()
            if current in found or current not in self._prompt:
                continue
            found.add(current)
            values = self._prompt[current].get("inputs", {}).values()
            waiting += [value[0] for value in values if is_link(value)]
        return found


def is_link(value: Any) -> bool:
    """Whether an input is a link to another node's output: `["1", 0]`."""
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)


def convert(name: str, config: InputConfig, values: dict[str, Any]) -> list[Error]:
    """Convert one value in place to the type of its input; return what is wrong with it."""
    kind = config[0]
    value = values[name]
    if isinstance(value, dict) and "__value__" in value:
        value = values[name] = value["__value__"]
    if isinstance(kind, str) and kind in _CONVERSIONS:
        try:
            value = values[name] = _CONVERSIONS[kind](value)
        except (TypeError, ValueError) as error:
            return [
                _error(
                    "invalid_input_type",
                    f"Failed to convert an input value to a {kind} value",
                    f"{name}, {value}, {error}",
                    _input_info(name, config, received_value=value, exception_message=str(error)),
                )
            ]
    return _out_of_range(name, config, value)


def _out_of_range(name: str, config: InputConfig, value: Any) -> list[Error]:
    kind, options = config[0], config[1] if len(config) > 1 else {}
    told = _input_info(name, config, received_value=value)
    if "min" in options and value < options["min"]:
        message = f"Value {value} smaller than min of {options['min']}"
        return [_error("value_smaller_than_min", message, name, told)]
    if "max" in options and value > options["max"]:
        message = f"Value {value} bigger than max of {options['max']}"
        return [_error("value_bigger_than_max", message, name, told)]
    # An uploaded file is newer than any list that the client has seen: the node itself judges it.
    uploaded = any(name.endswith("_upload") for name in options)
    if isinstance(kind, list) and value not in kind and not uploaded:
        known = str(kind)
        if len(kind) > _LONGEST_LIST_TOLD:
            known = f"(list of length {len(kind)})"
            told["input_config"] = None
        details = f"{name}: '{value}' not in {known}"
        return [_error("value_not_in_list", "Value not in list", details, told)]
    return []


def _input_info(name: str, config: InputConfig, **more: Any) -> dict[str, Any]:
    options = config[1] if len(config) > 1 else {}
    return {"input_name": name, "input_config": [config[0], options], **more}


def _exception_info(error: Exception) -> dict[str, Any]:
    return {"exception_type": type(error).__name__, "traceback": format_tb(error.__traceback__)}


def _error(kind: str, message: str, details: str = "", extra_info: Any = None) -> Error:
    return {"type": kind, "message": message, "details": details, "extra_info": extra_info or {}}


def _tell(error: Error) -> str:
    return f"{error['message']}: {error['details']}"
