"""The page on what a job is asked for, how far it is, and what it returns."""

import json
import re
from inspect import getdoc
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from reference.tables import table
from tasks.request import JobRequest, OutputOptions
from tasks.result import (
    Attempt,
    JobResult,
    ObjectRef,
    Output,
    Progress,
    Thumbnail,
    Timings,
)

_PARTS: dict[str, tuple[type[BaseModel], ...]] = {
    "The request": (JobRequest, OutputOptions),
    "Progress": (Progress,),
    "The result": (JobResult, Output, Thumbnail, ObjectRef, Attempt, Timings),
}


def models_page() -> str:
    """Every field of request, progress and result."""
    lines = [
        "# Request, progress and result",
        "",
        "All of it is JSON. Fields that are not known are refused in a request; in a result there",
        "may be more than are listed here, from workers of a later version.",
    ]
    for title, models in _PARTS.items():
        lines += ["", f"## {title}"]
        for model in models:
            rows = [_row(name, field) for name, field in model.model_fields.items()]
            about = (getdoc(model) or "").partition("\n\n")[0]
            header = ("field", "type", "default", "meaning")
            lines += ["", f"### {model.__name__}", "", about, "", *table(header, rows)]
    return "\n".join([*lines, ""])


def _row(name: str, field: Any) -> tuple[str, str, str, str]:
    return f"`{name}`", f"`{_type(field.annotation)}`", _default(field), field.description or ""


def _type(annotation: Any) -> str:
    """A type without the modules that its parts are from."""
    text = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    if getattr(annotation, "__args__", None):
        text = str(annotation)
    text = re.sub(r"Annotated\[(\w+), [^\]]*\]", r"\1", re.sub(r"\b(?:\w+\.)+(?=\w)", "", text))
    return text.replace("NoneType", "None")


def _default(field: Any) -> str:
    if field.is_required():
        return "required"
    value = field.default_factory() if field.default_factory else field.default
    if isinstance(value, BaseModel):
        return "its own"
    return "" if value is PydanticUndefined else f"`{json.dumps(value)}`"
