"""The messages recorded from real servers, for tests of what reads them."""

import json
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "fixtures" / "wire"
VERSIONS = ("0.3.64", "0.8.0")


def lines(version: str, scenario: str) -> list[dict[str, Any]]:
    """The lines of the one scenario whose name starts so."""
    path = FOLDER / f"comfyui-{version}.jsonl"
    every = [json.loads(line) for line in path.read_text().splitlines()]
    found = [line for line in every if line["scenario"].startswith(scenario)]
    assert found, scenario
    return found


def exchanges(version: str, scenario: str) -> Iterator[tuple[str, Any, Any]]:
    """Method and path, what was sent, what was answered."""
    for line in lines(version, scenario):
        if http := line.get("http"):
            yield " ".join(http["request"]), http.get("json"), http["response"]


def history_entry(version: str, scenario: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The workflow and the first non-empty history entry of a scenario."""
    for request, _, answer in exchanges(version, scenario):
        if request.startswith("GET /history/") and answer:
            (entry,) = answer.values()
            return entry["prompt"][2], entry
    raise AssertionError(scenario)


def websocket_messages(version: str, scenario: str) -> list[tuple[str, dict[str, Any]]]:
    """Type and data of what the websocket brought."""
    messages = [line["ws"] for line in lines(version, scenario) if "ws" in line]
    return [(message["type"], message["data"]) for message in messages]


def recorded_outputs() -> dict[str, tuple[dict[str, Any], bytes]]:
    """What nodes of a real 0.3.64 put out, by class: what they showed, and the one file in it.

    Of `SaveAudioOpus` the file is as the library writes it that the node uses.
    """
    path = FOLDER.parent / "outputs" / "comfyui-0.3.64.json"
    recorded = json.loads(path.read_text())
    return {name: (one["output"], b64decode(one["content"])) for name, one in recorded.items()}
