"""A param's value as the input that it is for has it: strictly, where servers take nearly anything.

Rows of a table are text, and a command line tells numbers from text only by their look; what fits
an input's type is converted to it, and nothing else.
"""

import math
import re
from collections.abc import Callable
from typing import Any

from tasks.request import shown
from workers.nodes.inputs import InputSpec, fault_in, span

# Types that nothing but a link can bring.
_LINKED = frozenset(
    {"MODEL", "CLIP", "VAE", "CONDITIONING", "LATENT", "IMAGE", "MASK", "AUDIO", "VIDEO"}
    | {"CONTROL_NET", "CLIP_VISION", "CLIP_VISION_OUTPUT", "STYLE_MODEL", "GLIGEN", "SAMPLER"}
    | {"SIGMAS", "NOISE", "GUIDER", "UPSCALE_MODEL", "HOOKS", "HOOK_KEYFRAMES", "LORA_MODEL"}
    | {"MODEL_PATCH", "PHOTOMAKER", "AUDIO_ENCODER", "AUDIO_ENCODER_OUTPUT", "SVG", "MESH", "VOXEL"}
)
_EXPECTED = {
    "INT": "a whole number{span}",
    "FLOAT": "a number{span}",
    "BOOLEAN": "true or false",
    "STRING": "text",
}
_NUMBER = re.compile(r"[+-]?(\d{1,400}\.?\d{0,400}|\.\d{1,400})([eE][+-]?\d{1,4})?", re.ASCII)


class _Unfit(Exception):  # noqa: N818  # an answer, not a failure
    """The value is none of the type."""


def read_value(value: Any, spec: InputSpec) -> tuple[Any, str | None]:
    """A param's value as an input has it, and what is wrong with it, if anything is.

    What is wrong is left as it is.
    """
    if "*" in spec.types or not spec.types:
        return value, None
    for kind in sorted(spec.types, key=lambda one: not _is_of(one, value)):
        try:
            read = _READERS[kind](value, spec) if kind in _READERS else value
        except _Unfit:
            continue
        if kind in _LINKED:
            return value, f"takes {kind} by a link, and no value"
        return read, fault_in(read, spec)
    expected = _EXPECTED.get(spec.types[0], "").format(span=span(spec))
    return value, f"found {shown(value)}, expected {expected}"


def _is_of(kind: str, value: object) -> bool:
    match value:
        case bool():
            return kind == "BOOLEAN"
        case int():
            return kind in ("INT", "FLOAT")
        case float():
            return kind == "FLOAT"
        case _:
            return kind == "STRING"


def _whole_number(value: Any, _spec: InputSpec) -> int:
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d{1,400}", value.strip(), re.ASCII):
        # Not by way of a float, which has no large seeds.
        return int(value)
    number = _number(value, _spec)
    if isinstance(number, float) and not number.is_integer():
        raise _Unfit
    return int(number)


def _number(value: Any, _spec: InputSpec) -> float:
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _Unfit
    # Not of whole numbers: they may have more digits than a float.
    if isinstance(value, float) and not math.isfinite(value):
        raise _Unfit
    return value


def _truth(value: Any, _spec: InputSpec) -> bool:
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    if not isinstance(value, bool):
        raise _Unfit
    return value


def _text(value: Any, _spec: InputSpec) -> str:
    if not isinstance(value, str | int | float):
        raise _Unfit
    return _as_text(value)


def _choice(value: Any, spec: InputSpec) -> Any:
    if spec.choices is None or isinstance(value, list) or value in spec.choices:
        return value
    return next((one for one in spec.choices if _as_text(one) == _as_text(value)), value)


def _as_text(value: object) -> str:
    """A value as JSON and tables write it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


_READERS: dict[str, Callable[[Any, InputSpec], Any]] = {
    "INT": _whole_number,
    "FLOAT": _number,
    "BOOLEAN": _truth,
    "STRING": _text,
    "COMBO": _choice,
}
