"""Everything recorded from real servers, sent again; `recordings` says what may differ."""

import ast
import json
from typing import Any

import pytest
import requests

from . import recordings
from .comfyui import ComfyUI, Listener, unique
from .recordings import Scenario

pytestmark = pytest.mark.contract

_SETTLED_SECONDS = 0.1
"""A message this much older than an answer had come before the request was sent."""
_ALL_STEPS = 1000
_UPLOAD = b"the same bytes every time"


class Replay:
    """One run through a recording, and what the server did in each scenario.

    A stand-in renders no further than the messages that had come in the recording: what a request
    meets does not depend on when it comes. Real servers know nothing of that and take their time.
    """

    def __init__(self, comfyui: ComfyUI, scenarios: list[Scenario], client_id: str) -> None:
        self._comfyui = comfyui
        self._client_id = client_id
        self._listener = Listener(comfyui.url, client_id)
        self._learned: dict[str, str] = {}
        self.scenarios = {scenario.name: scenario for scenario in scenarios}
        self.exchanges: dict[str, list[dict[str, Any]]] = {}
        self.messages: dict[str, list[dict[str, Any]]] = {}
        try:
            for scenario in scenarios:
                self._play(scenario)
        finally:
            self._let_steps(None)
            self._listener.close()

    def _play(self, scenario: Scenario) -> None:
        exchanges: list[dict[str, Any]] = []
        messages: list[dict[str, Any]] = []
        self._let_steps(0)
        told = 0
        for line in scenario.lines:
            before = self._heard_before(scenario, line["t"] - _SETTLED_SECONDS)
            if "ws" in line:
                continue
            steps = _steps(scenario.messages[told:before])
            if steps:
                self._let_steps(steps)
            told = max(told, before)
            if "http" in line:
                self._listener.wait_for_count(before - len(messages))
                exchanges.append(self._send(line["http"]))
            else:
                self._listener.wait_for_count(before - len(messages))
                self._listener.close()
                messages += self._listener.take()
                self._listener = Listener(self._comfyui.url, self._client_id)
                # The greeting: what runs now has not ended before.
                self._listener.wait_for_count(1)
        self._let_steps(_ALL_STEPS)
        if scenario.reconnects:
            self._listener.until(lambda message: message == scenario.messages[-1])
        else:
            self._listener.wait_for_count(len(scenario.messages) - len(messages))
        # What comes too much is found in the next scenario, of which it is no part.
        messages += self._listener.take()
        self.exchanges[scenario.name] = exchanges
        self.messages[scenario.name] = messages

    def _let_steps(self, steps: int | None) -> None:
        url, rule = f"{self._comfyui.url}/sandbox/steps", json.dumps(steps)
        assert self._comfyui.http.put(url, data=rule, timeout=10).status_code in (200, 404, 405)

    def _heard_before(self, scenario: Scenario, moment: float) -> int:
        return sum("ws" in line and line["t"] <= moment for line in scenario.lines)

    def _send(self, recorded: dict[str, Any]) -> dict[str, Any]:
        """Send a recorded request; describe the exchange as the recording does."""
        method, path = recorded["request"]
        arguments: dict[str, Any] = {}
        if "json" in recorded:
            arguments["json"] = recorded["json"]
        elif path == "/upload/image":
            arguments["data"] = ast.literal_eval(recorded["data"])
            arguments["files"] = {"image": ("a.png", _UPLOAD)}
        elif "data" in recorded:
            arguments["data"] = recorded["data"]
        response = self._comfyui.http.request(
            method, self._comfyui.url + path, params=recorded.get("params"), timeout=10, **arguments
        )
        exchange = {
            **recorded,
            "status": response.status_code,
            "content_type": response.headers.get("content-type"),
            "response": _body(response),
        }
        if path == "/prompt" and response.ok and "prompt_id" not in recorded.get("json", {}):
            self._learn(recorded["response"], exchange["response"])
        return exchange

    def _learn(self, recorded: dict[str, Any], answered: dict[str, Any]) -> None:
        if "prompt_id" in recorded:
            self._learned[recorded["prompt_id"]] = answered["prompt_id"]

    def known(self, text: str) -> str:
        """Put the ids that the server has made up in the place of the recorded ones."""
        for recorded, made_up in self._learned.items():
            text = text.replace(recorded, made_up)
        return text


def _steps(messages: list[dict[str, Any]]) -> int:
    """How many steps end with these messages: an interrupt is heard at the end of one."""
    return sum(message["type"] in ("progress", "execution_interrupted") for message in messages)


def _body(response: requests.Response) -> Any:
    content_type = response.headers.get("content-type") or ""
    if content_type.startswith("application/json"):
        return response.json()
    if content_type.startswith("text/"):
        return response.text
    return f"<{len(response.content)} bytes>"


@pytest.fixture(scope="module")
def replay(comfyui: ComfyUI) -> Replay:
    version = comfyui.version
    if version not in recordings.VERSIONS:
        pytest.skip(f"there is no recording of ComfyUI {version}")
    comfyui.need("BarsRender")
    comfyui.post("/history", json={"clear": True})
    client_id = unique("worker-")
    return Replay(comfyui, recordings.load(version, client_id), client_id)


@pytest.mark.parametrize("name", recordings.scenario_names())
def test_answers_are_as_recorded(replay: Replay, name: str) -> None:
    recorded, answered = _numbers(replay)
    expected = [
        replay.known(recordings.comparable_exchange(exchange, recorded))
        for exchange in replay.scenarios[name].exchanges
    ]
    observed = [
        recordings.comparable_exchange(exchange, answered) for exchange in replay.exchanges[name]
    ]
    assert observed == expected


@pytest.mark.parametrize("name", recordings.scenario_names())
def test_messages_are_as_recorded(replay: Replay, name: str) -> None:
    recorded, answered = _numbers(replay)
    scenario = replay.scenarios[name]
    expected = [
        replay.known(text)
        for text in recordings.comparable_messages(scenario.messages, scenario, recorded)
    ]
    assert recordings.comparable_messages(replay.messages[name], scenario, answered) == expected


def _numbers(replay: Replay) -> tuple[int, int]:
    """The first prompt's number in the recording and on this server."""
    first = next(exchange for exchanges in replay.exchanges.values() for exchange in exchanges)
    return (
        recordings.first_number(list(replay.scenarios.values())),
        first["response"]["number"],
    )
