"""What the frontend does to a text before it sends it: choices, comments and replacements."""

import re
from collections.abc import Callable, Sequence
from datetime import datetime

from tasks.errors import InvalidWorkflowError

Choose = Callable[[Sequence[str]], str]
Lookup = Callable[[str, str], object]
"""The value of a node's widget by the names of both, None if there is no such widget."""

_MOST_LEVELS = 50
_ESCAPED = re.compile(r"\\([{}|])")
_REPLACEMENT = re.compile(r"%([^%]+)%")
_UNFIT_FOR_FILES = re.compile(r'[/?<>\\:*|"\x00-\x1F\x7F]')
_DATE_PART = re.compile(r"dd?|MM?|hh?|mm?|ss?|yyyy|yyy|yy")


def dynamic_prompt(text: str, choose: Choose, level: int = 0) -> str:
    """The text without comments, one option chosen from each `{day|night}`.

    Raises:
        InvalidWorkflowError: choices are nested too deep.
    """
    if level > _MOST_LEVELS:
        raise InvalidWorkflowError(f"a prompt has choices nested deeper than {_MOST_LEVELS} levels")
    text = _without_comments(text)
    if "{" not in text:
        return _ESCAPED.sub(r"\1", text)
    parts: list[str] = []
    at = 0
    while at < len(text):
        if text[at] == "{":
            options, at = _options(text, at + 1)
            parts.append(dynamic_prompt(choose(options), choose, level + 1))
            continue
        length = 2 if text[at] == "\\" else 1
        parts.append(text[at : at + length])
        at += length
    return _ESCAPED.sub(r"\1", "".join(parts))


def with_replacements(text: str, lookup: Lookup, now: datetime) -> str:
    """The text with `%KSampler.seed%` and `%date:yyyy-MM-dd%` replaced by what they name."""

    def replaced(found: re.Match[str]) -> str:
        match found[1].split("."):
            case [node, widget]:
                value = lookup(node, widget)
                return found[0] if value is None else _UNFIT_FOR_FILES.sub("_", _as_text(value))
            case [first, *_] if first.startswith("date:"):
                return _date(first.removeprefix("date:"), now)
        return found[0]

    return _REPLACEMENT.sub(replaced, text)


def _options(text: str, at: int) -> tuple[list[str], int]:
    """The options of a choice, and where the text goes on after it."""
    options: list[str] = []
    option: list[str] = []
    depth = 0
    while at < len(text):
        length = 2 if text[at] == "\\" else 1
        part = text[at : at + length]
        at += length
        if part == "}" and depth == 0:
            break
        if part == "|" and depth == 0:
            options.append("".join(option))
            option = []
            continue
        depth += {"{": 1, "}": -1}.get(part, 0)
        option.append(part)
    return [*options, "".join(option)], at


def _without_comments(text: str) -> str:
    # Not by one expression: it would look for the end of each `/*` anew.
    parts: list[str] = []
    at = 0
    last_end = text.rfind("*/")
    for found in re.finditer(r"/\*|//", text):
        if found.start() < at:
            continue
        if found[0] == "//":
            end = re.compile(r".*").match(text, found.start())
            parts.append(text[at : found.start()])
            at = end.end() if end else len(text)
        elif last_end >= found.end():
            parts.append(text[at : found.start()])
            at = text.index("*/", found.end()) + 2
    return "".join((*parts, text[at:]))


def _date(pattern: str, now: datetime) -> str:
    values = {"d": now.day, "M": now.month, "h": now.hour, "m": now.minute, "s": now.second}

    def part(found: re.Match[str]) -> str:
        match found[0]:
            case "yy":
                return f"{now.year}"[2:]
            case "yyyy":
                return f"{now.year}"
            case "yyy":
                return "yyy"
            case other:
                return f"{values[other[0]]}".rjust(len(other), "0")

    return _DATE_PART.sub(part, pattern)


def _as_text(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case float() if value.is_integer():
            return str(int(value))
        case str() | int() | float():
            return str(value)
    return ""
