"""What a producer asks for: the arguments of `comfyui.run_workflow`."""

import difflib
import re
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
)

from tasks.errors import InvalidRequestError
from tasks.workflow_file import is_data_url, read_data_url, workflow_in

# S3 refuses presigned URLs that live longer than a week.
MAX_PRESIGN_SECONDS = 7 * 24 * 3600

_MOST_URL = 2048

_MAX_SHOWN = 80
# How many characters of a value are looked at before it is shown.
_MAX_READ = 4096
# How many names are compared with a wrong one.
_MAX_KNOWN = 1000

_DATA_URL = re.compile(r"\bdata:\S.*", re.IGNORECASE | re.DOTALL)
_CREDENTIALS = re.compile(r"://[^/\s@]*@")
_QUERY = re.compile(r"(://[^\s?]*\?)\S*")


def is_encodable(text: str) -> bool:
    """Whether the text has no half of a character pair: JSON can name it, no encoding has it."""
    return text.isascii() or text.encode("utf-8", "replace").decode() == text


def _encodable(text: str) -> str:
    if not is_encodable(text):
        raise ValueError("whole characters")
    return text


_Text = Annotated[str, AfterValidator(_encodable)]


class OutputOptions(BaseModel):
    """Where outputs go and which of them."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    prefix: str = Field("", description="Folder for this job's objects, below the worker's own.")
    presign_seconds: int | None = Field(
        None, ge=1, le=MAX_PRESIGN_SECONDS, description="Lifetime of a download URL an output."
    )
    include_temp: bool = Field(False, description="Store previews (`temp` outputs) too.")
    thumbnail: int | None = Field(
        None,
        ge=16,
        le=2048,
        description="Longer side in pixels of a WebP beside each picture; none by default.",
    )
    strip_metadata: bool = Field(
        False, description="Leave out the workflow and other metadata that files have inside."
    )

    @field_validator("prefix")
    @classmethod
    def _stays_below(cls, prefix: str) -> str:
        prefix = prefix.strip("/")
        if prefix and any(part in ("", ".", "..") for part in prefix.split("/")):
            raise ValueError("folder names joined by single slashes, without . or ..")
        if not prefix.isprintable() or len(prefix.encode()) > 512:
            raise ValueError("at most 512 bytes of printable characters")
        return prefix


WebhookEvent = Literal["job.started", "job.succeeded", "job.failed", "job.cancelled"]


def _ends() -> list[WebhookEvent]:
    return ["job.succeeded", "job.failed", "job.cancelled"]


class WebhookOptions(BaseModel):
    """Who is told of the job, beside whoever asks for its result."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    url: _Text = Field(description="Where each event is posted to, signed.")
    events: list[WebhookEvent] = Field(
        default_factory=_ends,
        min_length=1,
        description="`job.succeeded`, `job.failed`, `job.cancelled` (the default), `job.started`.",
    )

    @field_validator("url")
    @classmethod
    def _leads_to_a_host(cls, url: str) -> str:
        # Workers read it more strictly; this is what producers can be told at once.
        try:
            parts = urlsplit(url)
            usable = parts.scheme in ("https", "http") and parts.hostname and parts.port != 0
        except ValueError:
            usable = False
        if not usable or "@" in parts.netloc:
            raise ValueError("an https:// URL with a host, without user and password")
        if len(url) > _MOST_URL or not url.isprintable() or " " in url:
            raise ValueError(f"at most {_MOST_URL:,} characters, without spaces or line breaks")
        return url


class JobRequest(BaseModel):
    """One job: a workflow and how to run it. Field for field the task's keyword arguments."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    workflow: dict[str, Any] = Field(
        description="API format (node id to class_type and inputs), or an export of the UI."
    )
    params: dict[str, Any] = Field(
        default_factory=dict, description="Node inputs to set: `6.text` to its value."
    )
    inputs: dict[_Text, _Text] = Field(
        default_factory=dict,
        description="Files to place first: the name that the workflow uses to `https://`, `s3://` "
        "or `data:`.",
    )
    output: OutputOptions = OutputOptions()
    timeout_seconds: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="Seconds that its prompt may execute before it is stopped and the job fails.",
    )
    metadata: dict[_Text, _Text] = Field(
        default_factory=dict, description="Strings returned with the result and stored with it."
    )
    webhook: WebhookOptions | None = Field(
        None, description="`url` that is told of the job's end, and which `events`."
    )


_PARTS: Mapping[str, type[BaseModel]] = {"output": OutputOptions, "webhook": WebhookOptions}


def parse_request(positional: Sequence[Any], arguments: Mapping[str, Any]) -> JobRequest:
    """Read the arguments of a task message.

    A workflow that is a `data:` URL is read from the file in that: JSON, PNG or WebP. One in
    another object, such as the body of `POST /prompt`, is taken out of it.

    Raises:
        InvalidRequestError: names the argument, what was found and what is expected.
        InvalidWorkflowError: there is no workflow in the `data:` URL.
    """
    if positional:
        raise InvalidRequestError(
            "arguments are passed by name, as kwargs={'workflow': {...}}; in a chain use an "
            "immutable signature (.si) so that no earlier result is passed on"
        )
    given = dict(arguments)
    workflow = given.get("workflow")
    if is_data_url(workflow):
        given["workflow"] = read_data_url(workflow)
    elif (found := workflow_in(workflow)) is not None:
        given["workflow"] = found
    try:
        return JobRequest.model_validate(given)
    except ValidationError as error:
        raise InvalidRequestError(_sentence(error)) from None


def _sentence(error: ValidationError) -> str:
    return "; ".join(_fault(e) for e in error.errors(include_url=False)[:3])


def _fault(error: Any) -> str:
    if not error["loc"]:
        return f"found {shown(error['input'])} among the arguments' names, expected a valid one"
    *parents, name = (str(part) for part in error["loc"])
    path = shown(".".join((*parents, name)))
    match error["type"]:
        case "extra_forbidden":
            known = _PARTS.get(parents[0]) if parents else None
            fields = (known or JobRequest).model_fields
            return f"unknown argument {path}{did_you_mean(name, fields)}"
        case "missing":
            return f"argument {path} is missing"
        case "dict_type" | "model_type":
            return f"argument {path}: found {shown(error['input'])}, expected a JSON object"
        case _:
            expected = error["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
            return f"argument {path}: found {shown(error['input'])}, expected {expected}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A clause that names the nearest of the known names, or nothing."""
    # Comparing takes the product of the lengths: names of people's making are short.
    if len(name) > _MAX_SHOWN:
        return ""
    short = [one for one in islice(known, _MAX_KNOWN) if len(one) <= _MAX_SHOWN]
    near = difflib.get_close_matches(name, short, n=1, cutoff=0.5)
    return f", did you mean {shown(near[0])}?" if near else ""


def shown(value: Any) -> str:
    """A value as an error message shows it: short, on one line, without secrets."""
    return _cut(_SHORT.repr(value), _MAX_SHOWN)


def label(text: str, most: int = _MAX_SHOWN) -> str:
    """A text from outside as part of a message: as `shown`, but not quoted."""
    one_line = " ".join(text[:_MAX_READ].split())
    return _cut("".join(c if c.isprintable() else "?" for c in _without_secrets(one_line)), most)


def _without_secrets(text: str) -> str:
    text = _DATA_URL.sub("data:...", text)
    return _QUERY.sub(r"\1...", _CREDENTIALS.sub("://...@", text))


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."


class _Short(reprlib.Repr):
    """The representation of the outermost levels; the whole may be megabytes, or too deep."""

    def repr_str(self, x: str, level: int) -> str:  # noqa: ARG002  # as the base has it
        return repr(_without_secrets(x[:_MAX_READ]))


_SHORT = _Short()
