"""The recordings of real servers, and what in them may differ from one run to the next.

Each line of a recording is an HTTP exchange or a websocket message of one scenario. A replay sends
the recorded requests again and compares status, content type, body and messages. So that runs can
be compared at all:

- Prompt ids, seeds, the client id, the file prefix and the upload folder are replaced by fresh ones
  before sending, in the recording and thereby in what is expected. Ids that the server makes up are
  learned from its answer.
- `seconds` are halved, whole ones staying whole, so that the conversion to float still shows.
- Prompt numbers count from the first prompt of the recording.
- Times, tracebacks, memory sizes, versions of Python and PyTorch, sizes of images and the random
  part of preview names are replaced by a word, once their type has been checked.
- Lists that a server builds from a set (outputs to execute, cached or executed nodes, errors of one
  node) are sorted.
- Texts for humans (descriptions, tooltips) and the names of installed models and uploaded images
  are no protocol.
- Messages are compared in order; in scenarios with several prompts the `status` messages, which
  come from another thread than the rest, are compared in an order of their own.
- After a reconnect, the steps that were missed depend on the moment: steps before the last are left
  out there.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.recordings import FOLDER as WIRE
from tests.recordings import VERSIONS

from .comfyui import any_seed, unique

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_SEED = re.compile(r'("seed": \[?)(\d{10})\b')
_HOLDS_QUEUE_ITEMS = ("prompt", "queue_running", "queue_pending")
_PROSE = ("description", "tooltip", "output_tooltips")


@dataclass
class Scenario:
    """The lines of one scenario, in the order in which they were recorded."""

    name: str
    lines: list[dict[str, Any]] = field(default_factory=list)

    @property
    def exchanges(self) -> list[dict[str, Any]]:
        """The HTTP exchanges."""
        return [line["http"] for line in self.lines if "http" in line]

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The websocket messages."""
        return [line["ws"] for line in self.lines if "ws" in line]

    @property
    def reconnects(self) -> bool:
        """Whether the client drops its websocket in the middle."""
        return any("ws_closed" in line for line in self.lines)

    @property
    def prompts(self) -> int:
        """How many prompts the server accepts."""
        return sum(
            exchange["request"] == ["POST", "/prompt"] and exchange["status"] == 200
            for exchange in self.exchanges
        )


def scenario_names() -> list[str]:
    """The names of all scenarios, in order; they are the same in all recordings."""
    names: dict[str, list[str]] = {
        version: list(dict.fromkeys(line["scenario"] for line in _lines(_read(version))))
        for version in VERSIONS
    }
    assert names[VERSIONS[0]] == names[VERSIONS[1]]
    return names[VERSIONS[0]]


def load(version: str, client_id: str) -> list[Scenario]:
    """Read the recording of one version, with fresh ids, seeds and names."""
    text = _read(version)
    for recorded in set(_UUID.findall(text)):
        # The hyphens stay, so that an id still looks like one.
        fresh = unique()
        text = text.replace(recorded, f"{recorded[:24]}{fresh}")
    seeds = {seed: any_seed() for _, seed in set(_SEED.findall(text))}
    text = _SEED.sub(lambda found: f"{found[1]}{seeds[found[2]]}", text)
    token = unique()
    for recorded, fresh in (("shots", f"shots-{token}"), ("job-1", f"job-{token}")):
        text = text.replace(recorded, fresh)
    text = text.replace('"worker-1"', json.dumps(client_id))
    scenarios: dict[str, Scenario] = {}
    for line in _lines(text):
        name = line.pop("scenario")
        scenarios.setdefault(name, Scenario(name)).lines.append(_transform(line, _shorten))
    return list(scenarios.values())


def first_number(scenarios: list[Scenario]) -> int:
    """The prompt number that a recording starts with."""
    return next(
        int(exchange["response"]["number"])
        for scenario in scenarios
        for exchange in scenario.exchanges
        if exchange["request"] == ["POST", "/prompt"] and exchange["status"] == 200
    )


def comparable_messages(
    messages: list[dict[str, Any]], scenario: Scenario, number: int
) -> list[str]:
    """Messages as they are compared: one text each."""
    kept = messages
    if scenario.reconnects:
        kept = [message for message in messages if not _is_passing_step(message)]
    if scenario.prompts > 1:
        kept = sorted(kept, key=lambda message: message["type"] == "status")
    return [_comparable(message, number) for message in kept]


def comparable_exchange(exchange: dict[str, Any], number: int) -> str:
    """An HTTP exchange as it is compared."""
    method, path = exchange["request"]
    response = exchange["response"]
    if isinstance(response, str):
        response = re.sub(r"^<[1-9]\d* bytes>$", "<bytes>", response)
    if path == "/models/checkpoints":
        assert all(isinstance(name, str) for name in response)
        response = ["<names>"]
    if path == "/history" and exchange.get("params", {}).get("offset") == 0:
        # The oldest entry is older than the recording: only its outline can be compared.
        (entry,) = response.values()
        assert entry["prompt"][1] in response
        response = {"<oldest>": {name: type(value).__name__ for name, value in entry.items()}}
    told = {"status": exchange["status"], "type": exchange["content_type"], "body": response}
    return f"{method} {path} {_comparable(told, number)}"


def _read(version: str) -> str:
    return (WIRE / f"comfyui-{version}.jsonl").read_text()


def _lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def _transform(value: Any, change: Callable[[str, Any], Any], name: str = "") -> Any:
    """Apply `change` to every value, from the leaves up, with the name that it has."""
    if isinstance(value, dict):
        value = {key: _transform(item, change, key) for key, item in value.items()}
    elif isinstance(value, list):
        value = [_transform(item, change, name) for item in value]
    return change(name, value)


def _shorten(name: str, value: Any) -> Any:
    if name == "seconds" and isinstance(value, int | float) and value == int(value):
        return type(value)(max(1, round(value / 2)))
    return value / 2 if name == "seconds" and isinstance(value, float) else value


def _is_passing_step(message: dict[str, Any]) -> bool:
    if message["type"] == "progress":
        return bool(message["data"]["value"] < message["data"]["max"])
    if message["type"] == "progress_state":
        (node, *_) = message["data"]["nodes"].values()
        return bool(0 < node["value"] < node["max"])
    return False


def _comparable(value: Any, number: int) -> str:
    """As JSON, in which 8 and 8.0 differ."""

    def change(name: str, item: Any) -> Any:
        if isinstance(item, dict):
            item = {key: kept for key, kept in item.items() if key not in _PROSE}
        if name == "number":
            return _relative(item, number)
        if name in _HOLDS_QUEUE_ITEMS and _is_queue_item(item):
            return [_relative(item[0], number), *item[1:4], sorted(item[4])]
        return _CHANGES[name](item) if name in _CHANGES else item

    return json.dumps(_transform(value, change), sort_keys=True)


def _is_queue_item(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 5 and isinstance(value[1], str)


def _relative(value: float, number: int) -> float:
    """A prompt number, counted from the first prompt; at the front they stay negative."""
    return value - number if value >= 0 else value + number


def _word(word: str, kind: type = object) -> Callable[[Any], str]:
    """Replace a value of this type by a word."""

    def replace(value: Any) -> str:
        assert isinstance(value, kind)
        return word

    return replace


def _in_order(value: Any) -> Any:
    """Sort what a server lists in no certain order."""
    if not isinstance(value, list):
        return value
    return sorted(value, key=lambda item: json.dumps(item, sort_keys=True))


def _without_lines(traceback: Any) -> Any:
    if not isinstance(traceback, list):
        assert isinstance(traceback, str)
        return traceback
    assert traceback
    return "<traceback>"


def _without_names(config: Any) -> Any:
    """An input whose allowed values are what is installed: without them."""
    if not isinstance(config, list) or not config or not isinstance(config[0], list):
        return config
    files = not config[0] or all("." in str(name) for name in config[0])
    return [["<names>"], *config[1:]] if files else config


_MEMORY = (
    "ram_total",
    "ram_free",
    "vram_total",
    "vram_free",
    "torch_vram_total",
    "torch_vram_free",
)
_MACHINE = ("python_version", "pytorch_version", "installed_templates_version", "argv")
_UNORDERED = ("executed", "current_outputs", "dependent_outputs", "nodes", "errors")
_CHANGES: dict[str, Callable[[Any], Any]] = {
    "timestamp": _word("<milliseconds>", int),
    "create_time": _word("<milliseconds>", int),
    "traceback": _without_lines,
    "filename": lambda name: re.sub(r"^ComfyUI_temp_[a-z]{5}_", "ComfyUI_temp_?????_", name),
    "details": lambda text: re.sub(r"^(ckpt_name: .* not in )\[.*\]$", r"\1[...]", text),
    "input_config": _without_names,
    "image": _without_names,
    **dict.fromkeys(_MEMORY, _word("<bytes>", int)),
    **dict.fromkeys(_MACHINE, _word("<this machine>")),
    **dict.fromkeys(_UNORDERED, _in_order),
}
