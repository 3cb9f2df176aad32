"""Whom a message on the websocket reaches, and whom it wakes; none is connected."""

import json
from types import SimpleNamespace
from typing import Any

import pytest
from websocket import ABNF

from workers.comfyui import Notifications
from workers.comfyui import notifications as module


@pytest.fixture
def notifications() -> Notifications:
    return Notifications("http://gpu", "me")


def dispatch(notifications: Notifications, kind: str, **data: Any) -> None:
    notifications._dispatch(json.dumps({"type": kind, "data": data}).encode())


def test_what_a_node_has_put_out_is_told_to_who_waits_for_its_prompt(
    notifications: Notifications,
) -> None:
    told: list[tuple[str, Any]] = []
    output = {"images": [{"filename": "a"}], "text": ["b"]}
    with (
        notifications.subscribed("p", lambda *what: told.append(what)) as one,
        notifications.subscribed("q", lambda *_: pytest.fail("it is another's")),
        notifications.subscribed("p"),
    ):
        dispatch(notifications, "executed", prompt_id="p", node="9", output=output)
        # It has not ended yet.
        assert not one.wait(0.0)
    dispatch(notifications, "executed", prompt_id="p", node="10", output=output)
    assert told == [("9", output)]


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("executed", {"node": "9", "output": None}),
        ("executed", {"node": "9", "output": []}),
        ("executed", {"node": "9"}),
        ("executed", {"node": None, "output": {}}),
        ("executed", {"node": 9, "output": {}}),
        ("executed", {"output": {}}),
        ("executing", {"node": "9", "output": {}}),
    ],
    ids=str,
)
def test_what_is_no_output_is_not_told(
    notifications: Notifications, kind: str, data: dict[str, Any]
) -> None:
    with notifications.subscribed("p", lambda *_: pytest.fail("it was told")):
        dispatch(notifications, kind, prompt_id="p", **data)


def test_that_a_prompt_begins_is_told_once(notifications: Notifications) -> None:
    begun: list[str] = []
    with notifications.subscribed("p", on_begun=lambda: begun.append("p")):
        dispatch(notifications, "status", status={})
        assert begun == []
        dispatch(notifications, "execution_start", prompt_id="p")
        dispatch(notifications, "execution_start", prompt_id="p")
        dispatch(notifications, "executing", prompt_id="p", node="1")
    assert begun == ["p"]


def test_the_end_wakes(notifications: Notifications) -> None:
    with notifications.subscribed("p") as one, notifications.subscribed("q") as other:
        dispatch(notifications, "execution_success", prompt_id="p")
        assert (one.wait(0.0), other.wait(0.0)) == (True, False)
        # Once.
        assert not one.wait(0.0)


def test_a_change_of_the_queue_wakes_only_who_may_hear_nothing_else(
    notifications: Notifications,
) -> None:
    with (
        notifications.subscribed("mine") as mine,
        notifications.subscribed("of another client", adopted=True) as unheard,
        notifications.subscribed("of another one", adopted=True) as heard,
    ):
        dispatch(notifications, "execution_start", prompt_id="of another one")
        dispatch(notifications, "status", status={"exec_info": {"queue_remaining": 1}})
        assert [one.wait(0.0) for one in (mine, unheard, heard)] == [False, True, False]


# Signs of life


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    one = SimpleNamespace(now=1000.0)
    one.monotonic = lambda: one.now
    monkeypatch.setattr(module, "time", one)
    return one


class Socket:
    """Frames that come, each some seconds after the one before; then the end."""

    received = 0

    def __init__(self, clock: SimpleNamespace, *frames: tuple[float, int, bytes]) -> None:
        self._clock = clock
        self._frames = [*frames, (0.0, ABNF.OPCODE_CLOSE, b"")]

    def settimeout(self, _: float) -> None:
        """Nothing is waited for."""

    def recv_data_frame(self, *, control_frame: bool) -> tuple[int, SimpleNamespace]:
        assert control_frame
        seconds, opcode, data = self._frames.pop(0)
        self._clock.now += seconds
        return opcode, SimpleNamespace(data=data)


def listen(notifications: Notifications, socket: Socket) -> None:
    notifications._listen(socket)  # type: ignore[arg-type]


START = json.dumps({"type": "execution_start", "data": {"prompt_id": "p"}}).encode()


def test_what_is_about_prompts_is_a_sign_of_life_and_nothing_else(clock: SimpleNamespace) -> None:
    heard: list[float] = []
    adopted = Notifications("http://gpu", "another", on_heard=lambda: heard.append(clock.now))
    frames = [
        (1.0, ABNF.OPCODE_TEXT, START),
        (2.0, ABNF.OPCODE_BINARY, b"a preview"),
        (3.0, ABNF.OPCODE_TEXT, b"no json"),
        # As extensions send, all the time.
        (4.0, ABNF.OPCODE_TEXT, b'{"type": "crystools.monitor", "data": {"cpu_utilization": 3}}'),
        (5.0, ABNF.OPCODE_TEXT, b'{"type": "status", "data": {"status": {}}}'),
        # The connection lives, which says nothing about the server's work.
        (6.0, ABNF.OPCODE_PONG, b""),
    ]
    listen(adopted, Socket(clock, *frames))
    assert heard == [1001.0, 1003.0]
    assert adopted.heard_at == 1003.0


def test_who_waits_for_the_end_of_a_connection_waits_for_none_that_is_not_there(
    notifications: Notifications, clock: SimpleNamespace
) -> None:
    assert notifications.wait_cut(0.0)
    listen(notifications, Socket(clock))
    assert notifications.connected
    assert not notifications.wait_cut(0.0)


def test_what_another_listener_hears_is_a_sign_of_life(
    notifications: Notifications, clock: SimpleNamespace
) -> None:
    adopted = Notifications("http://gpu", "another", on_heard=notifications.hear)
    listen(notifications, Socket(clock))
    listen(adopted, Socket(clock, (7.0, ABNF.OPCODE_TEXT, START)))
    assert notifications.heard_at == 1007.0
