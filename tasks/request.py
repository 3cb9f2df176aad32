"""What a producer asks for: the arguments of `comfyui.run_workflow`."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from tasks.errors import InvalidRequestError

# S3 refuses presigned URLs that live longer than a week.
MAX_PRESIGN_SECONDS = 7 * 24 * 3600

_MAX_SHOWN = 80


class OutputOptions(BaseModel):
    """Where outputs go and which of them."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    prefix: str = Field("", description="Folder for this job's objects, below the worker's own.")
    presign_seconds: int | None = Field(
        None, ge=1, le=MAX_PRESIGN_SECONDS, description="Lifetime of a download URL an output."
    )
    include_temp: bool = Field(False, description="Store previews (`temp` outputs) too.")

    @field_validator("prefix")
    @classmethod
    def _stays_below(cls, prefix: str) -> str:
        prefix = prefix.strip("/")
        if prefix and any(part in ("", ".", "..") for part in prefix.split("/")):
            raise ValueError("folder names joined by single slashes, without . or ..")
        if not prefix.isprintable() or len(prefix.encode()) > 512:
            raise ValueError("at most 512 bytes of printable characters")
        return prefix


class JobRequest(BaseModel):
    """One job: a workflow and how to run it. Field for field the task's keyword arguments."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    workflow: dict[str, Any] = Field(description="API format: node id to class_type and inputs.")
    params: dict[str, Any] = Field(
        default_factory=dict, description="Node inputs to set: `6.text` to its value."
    )
    inputs: dict[str, str] = Field(
        default_factory=dict,
        description="Files to place first: the name that the workflow uses to `s3://` or `data:`.",
    )
    output: OutputOptions = OutputOptions()
    timeout_seconds: float | None = Field(
        None,
        gt=0,
        description="Seconds from an attempt's start after which it is stopped if it executes.",
    )
    metadata: dict[str, str] = Field(
        default_factory=dict, description="Strings returned with the result and stored with it."
    )


def parse_request(positional: Sequence[Any], arguments: Mapping[str, Any]) -> JobRequest:
    """Read the arguments of a task message.

    Raises:
        InvalidRequestError: names the argument, what was found and what is expected.
    """
    if positional:
        raise InvalidRequestError(
            "arguments are passed by name, as kwargs={'workflow': {...}}; in a chain use an "
            "immutable signature (.si) so that no earlier result is passed on"
        )
    try:
        return JobRequest.model_validate(dict(arguments))
    except ValidationError as error:
        raise InvalidRequestError(_sentence(error)) from None


def _sentence(error: ValidationError) -> str:
    return "; ".join(_fault(e) for e in error.errors(include_url=False)[:3])


def _fault(error: Any) -> str:
    *parents, name = (str(part) for part in error["loc"])
    path = ".".join((*parents, name))
    match error["type"]:
        case "extra_forbidden":
            known = OutputOptions.model_fields if parents else JobRequest.model_fields
            return f"unknown argument {path!r}{did_you_mean(name, known)}"
        case "missing":
            return f"argument {path!r} is missing"
        case "dict_type":
            return f"argument {path!r}: found {shown(error['input'])}, expected a JSON object"
        case _:
            expected = error["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
            return f"argument {path!r}: found {shown(error['input'])}, expected {expected}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A clause that names the nearest of the known names, or nothing."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f", did you mean {near[0]!r}?" if near else ""


def shown(value: Any) -> str:
    """A value as an error message shows it: short, on one line."""
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 3] + "..."
