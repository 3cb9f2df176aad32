"""Whom a message on the websocket reaches, and whom it wakes; none is connected."""

import json
from typing import Any

import pytest

from workers.comfyui import Notifications


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
