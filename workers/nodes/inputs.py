"""An input of a node class as `/object_info` describes it, and what is wrong with a value for it.

The forms are those of the recorded servers: choices as a list in the place of the type, or as
`options` beside `COMBO`; inputs that a choice brings along; types joined by commas.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from tasks.request import did_you_mean, shown

NUMBERS = frozenset({"INT", "FLOAT"})

# As servers read a value of these types. Any text and any truth will do.
_READERS: Mapping[str, Callable[[Any], Any]] = {"INT": int, "FLOAT": float}
_WORDS = {"INT": "a whole number", "FLOAT": "a number"}

_DYNAMIC_COMBO = "COMFY_DYNAMICCOMBO_V3"

# What lies in the folders that people upload to, and is no model.
_UPLOADED = frozenset(
    {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".svg"}
    | {".mp4", ".webm", ".mov", ".mkv", ".avi", ".m4v"}
    | {".wav", ".mp3", ".flac", ".ogg", ".opus", ".m4a", ".aac"}
    | {".glb", ".gltf", ".obj", ".fbx", ".stl", ".ply", ".latent"}
)
# Lists of files that nothing in `/object_info` tells from a list of models.
_FILE_LISTS = frozenset(
    {("LoadLatent", "latent"), ("VHS_LoadVideo", "video"), ("VHS_LoadVideoFFmpeg", "video")}
    | {("VHS_LoadAudioUpload", "audio"), ("VHS_LoadImages", "directory")}
)
# Options by which a class says that its choices are not all there is.
_OPEN = ("remote", "image_folder", "vhs_path_extensions")

_MOST_LISTED = 6


@dataclass(frozen=True)
class InputSpec:
    """What a node class says about one of its inputs.

    Attributes:
        name: as workflows have it.
        types: what it takes; `COMBO` for one of some choices, `*` for anything.
        is_required: whether a workflow must have it.
        choices: of a `COMBO`; None if any value may be right, as of an uploaded file's name.
        minimum: the least number it takes, if there is one.
        maximum: the greatest number it takes, if there is one.
        options: all else that is said of it.
    """

    name: str
    types: tuple[str, ...]
    is_required: bool = True
    choices: tuple[Any, ...] | None = None
    minimum: float | None = None
    maximum: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def input_spec(node_class: Mapping[str, Any], name: str) -> InputSpec | None:
    """What a class, as `/object_info` has it, says of an input; None if it has none of the name.

    Inputs that only one choice of another input brings along count as well.
    """
    for given, spec, is_required in _given(node_class):
        if given == name:
            return _read(node_class, name, spec, is_required=is_required)
    for given, spec, _ in _given(node_class):
        for further, its_spec in _further(given, spec):
            if further == name:
                return _read(node_class, name, its_spec, is_required=False)
            if _has_any(its_spec) and name.startswith(f"{further}."):
                return InputSpec(name, ("*",), is_required=False)
        if _has_any(spec) and name.startswith(f"{given}."):
            return InputSpec(name, ("*",), is_required=False)
    return None


def input_names(node_class: Mapping[str, Any]) -> list[str]:
    """The inputs of a class that a workflow may set, without those that a choice brings along."""
    return [name for name, _, _ in _given(node_class)]


def fault_in(value: object, spec: InputSpec) -> str | None:
    """Why a server refuses a value, which is no link, for an input; None if it takes it.

    The clause says what was found and what is expected. Like servers it takes numbers as text,
    and minds no `step`. A choice beside `COMBO` is judged as well, which 0.3.64 leaves to the node.
    """
    if isinstance(value, Mapping) and "__value__" in value:
        value = value["__value__"]
    if not spec.types or "*" in spec.types:
        return None
    faults = [_fault(kind, value, spec) for kind in spec.types]
    return None if None in faults else faults[0]


def span(spec: InputSpec) -> str:
    """The numbers that an input takes, as messages say it: ` from 1 to 100`, or nothing."""
    low, high = spec.minimum, spec.maximum
    if low is not None and high is not None:
        return f" from {low} to {high}"
    if low is not None:
        return f" of at least {low}"
    return f" of at most {high}" if high is not None else ""


def _fault(kind: str, value: object, spec: InputSpec) -> str | None:
    if kind == "COMBO":
        return _fault_in_choice(value, spec)
    return _fault_in_number(kind, value, spec) if kind in NUMBERS else None


def _fault_in_number(kind: str, value: object, spec: InputSpec) -> str | None:
    fault = f"found {shown(value)}, expected {_WORDS[kind]}{span(spec)}"
    try:
        number = _READERS[kind](value)
    except (TypeError, ValueError, OverflowError):
        return fault
    too_small = spec.minimum is not None and number < spec.minimum
    too_large = spec.maximum is not None and number > spec.maximum
    return fault if too_small or too_large else None


def _fault_in_choice(value: object, spec: InputSpec) -> str | None:
    if spec.choices is None:
        return None
    several = spec.options.get("multi_select") or spec.options.get("multiselect")
    for one in value if several and isinstance(value, list) else [value]:
        if one not in spec.choices:
            return f"found {shown(one)}, expected {_known(one, spec.choices)}"
    return None


def _known(value: Any, choices: tuple[Any, ...]) -> str:
    if not choices:
        return "one of its choices, of which this server has none"
    if len(choices) <= _MOST_LISTED:
        return f"one of {', '.join(shown(one) for one in choices)}"
    hint = did_you_mean(str(value), (one for one in choices if isinstance(one, str)))
    return f"one of its {len(choices)} choices{hint}"


def _given(node_class: Mapping[str, Any]) -> Iterator[tuple[str, Any, bool]]:
    """Name and description of each input, and whether it is required; not of the server's own."""
    sections = node_class.get("input")
    for section in ("required", "optional"):
        for name, spec in _mapping(sections, section).items():
            # Workflows have the inputs that it brings along, and not itself.
            yield name, spec, section == "required" and not _has_any(spec)


def _further(name: str, spec: object) -> Iterator[tuple[str, Any]]:
    """Name and description of the inputs that the choices of an input bring along."""
    match spec:
        case ["COMFY_DYNAMICCOMBO_V3", Mapping() as options, *_]:
            choices = options.get("options")
            for choice in choices if isinstance(choices, list) else ():
                inner = choice.get("inputs") if isinstance(choice, Mapping) else None
                for section in ("required", "optional"):
                    for inner_name, inner_spec in _mapping(inner, section).items():
                        yield f"{name}.{inner_name}", inner_spec
                        yield from _further(f"{name}.{inner_name}", inner_spec)
        case [_, {"formats": Mapping() as formats}, *_]:
            for further in formats.values():
                for item in further if isinstance(further, list) else ():
                    match item:
                        case [str(inner_name), *inner_spec]:
                            yield inner_name, inner_spec


def _has_any(spec: object) -> bool:
    """Whether an input brings others along whose names are made up as they come."""
    match spec:
        case [str(kind), *_]:
            return kind.startswith("COMFY_") and kind != _DYNAMIC_COMBO
    return False


def _read(node_class: Mapping[str, Any], name: str, spec: Any, *, is_required: bool) -> InputSpec:
    choices: list[Any] | None
    match spec:
        case [list(choices), Mapping() as options, *_]:
            kind = "COMBO"
        case [list(choices), *_]:
            kind, options = "COMBO", {}
        case [str(kind), Mapping() as options, *_]:
            choices = _choices(options)
        case [str(kind), *_]:
            choices, options = None, {}
        case _:
            return InputSpec(name, ("*",), is_required=is_required)
    if kind == _DYNAMIC_COMBO:
        keys = [one.get("key") for one in choices or () if isinstance(one, Mapping)]
        kind, choices = "COMBO", keys
    types = tuple(one for part in kind.split(",") if (one := part.strip()))
    if choices is not None and _is_open(node_class.get("name"), name, options, choices):
        choices = None
    return InputSpec(
        name=name,
        types=types,
        is_required=is_required,
        choices=tuple(choices) if choices is not None and "COMBO" in types else None,
        minimum=_number(options.get("min")),
        maximum=_number(options.get("max")),
        options=options,
    )


def _is_open(class_name: object, name: str, options: Mapping[str, Any], choices: list[Any]) -> bool:
    """Whether a server may take what is not among the choices."""
    if (str(class_name), name) in _FILE_LISTS:
        return True
    if any(options.get(one) for one in _OPEN):
        return True
    if any(flag.endswith("_upload") and options[flag] for flag in options):
        return True
    return any(isinstance(one, str) and _is_uploaded(one) for one in choices)


def _is_uploaded(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in _UPLOADED


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if math.isfinite(value) else None


def _choices(options: Mapping[str, Any]) -> list[Any] | None:
    choices, default = options.get("options"), options.get("default")
    if not isinstance(choices, list):
        return None
    # Some classes have a default that is none of their choices; servers run it.
    return choices if default is None or default in choices else [*choices, default]


def _mapping(value: object, name: str) -> Mapping[str, Any]:
    found = value.get(name) if isinstance(value, Mapping) else None
    return found if isinstance(found, Mapping) else {}
