"""What only the stand-in can show: starting, stopping, forgetting, and faults on demand."""

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import websocket

from sandbox import stack

from .comfyui import ComfyUI, bars, bars_and_save, save, show, unique
from .stand_in import StandIn

pytestmark = pytest.mark.contract

UNREACHABLE = requests.exceptions.ConnectionError


@pytest.fixture
def server(fresh: StandIn) -> Iterator[ComfyUI]:
    """The client of a stand-in of the test's own."""
    server = ComfyUI(fresh.url)
    with server.http:
        yield server


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[stack.StandIn]:
    """One as the stack starts it, which can be started again."""
    one = stack.StandIn(tmp_path)
    yield one
    one.stop()


def set_faults(server: ComfyUI, **faults: Any) -> None:
    server.http.put(f"{server.url}/sandbox/faults", json=faults, timeout=10).raise_for_status()


def clear_faults(server: ComfyUI) -> None:
    server.http.delete(f"{server.url}/sandbox/faults", timeout=10).raise_for_status()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_at_once_while_a_prompt_runs_and_a_client_listens(
    fresh: StandIn, server: ComfyUI, number: signal.Signals
) -> None:
    with server.listen() as listener:
        server.running(server.submit(bars_and_save(seconds=60, steps=1)))
        start = time.monotonic()
        assert fresh.stop(number) == (0, "")
        assert time.monotonic() - start < 10
        listener.wait_closed()


def test_it_forgets_its_history_when_restarted_but_not_its_files(tmp_path: Path) -> None:
    with StandIn(tmp_path, "0.8.0") as before:
        server = ComfyUI(before.url)
        with server.http:
            prompt_id = server.submit(bars_and_save(), client_id="me")
            (file,) = server.finished(prompt_id)["outputs"]["2"]["images"]
    with StandIn(tmp_path, "0.8.0") as after:
        server = ComfyUI(after.url)
        with server.http:
            assert server.get("/history").json() == {}
            assert server.get(f"/history/{prompt_id}").json() == {}
            assert server.get("/view", **file).status_code == 200


def test_cached_run_names_a_file_that_has_been_deleted(fresh: StandIn, server: ComfyUI) -> None:
    workflow = bars_and_save()
    (file,) = server.run(workflow, client_id="me")["outputs"]["2"]["images"]
    (fresh.directory / "output" / file["filename"]).unlink()
    assert server.run(workflow, client_id="me")["outputs"]["2"]["images"] == [file]
    assert server.get("/view", **file).status_code == 404


def test_it_counts_the_executions_of_a_prompt_id(server: ComfyUI) -> None:
    prompt_id = unique()
    for _ in range(2):
        server.submit({"1": show("x")}, prompt_id=prompt_id)
    last = server.submit({"1": show("x")})
    server.finished(last)
    assert server.get("/sandbox/executions").json() == {prompt_id: 2, last: 1}


def test_fault_spoils_as_many_requests_as_it_says(server: ComfyUI) -> None:
    fault = {"method": "GET", "path": "/queue", "status": 503, "body": "busy", "times": 2}
    set_faults(server, http=[fault])
    answers = [server.get(path) for path in ("/queue", "/api/queue", "/queue")]
    assert [answer.status_code for answer in answers] == [503, 503, 200]
    assert answers[0].text == "busy"
    assert answers[0].headers["content-type"].startswith("text/plain")


def test_fault_may_match_many_paths_and_one_method(server: ComfyUI) -> None:
    fault = {
        "method": "GET",
        "path": "/history/*",
        "status": 500,
        "body": "<html>",
        "content_type": "text/html",
    }
    set_faults(server, http=[fault])
    assert server.get(f"/history/{unique()}").headers["content-type"].startswith("text/html")
    assert server.get("/history").status_code == 200
    assert server.post("/history", json={}).status_code == 200


def test_fault_may_be_a_delay(server: ComfyUI) -> None:
    fault = {"method": "GET", "path": "/prompt", "delay_seconds": 0.3, "times": 1}
    set_faults(server, http=[fault])
    start = time.monotonic()
    assert server.get("/prompt").json() == {"exec_info": {"queue_remaining": 0}}
    assert time.monotonic() - start >= 0.3


def test_fault_may_drop_the_connection_before_the_request_is_handled(server: ComfyUI) -> None:
    fault = {"method": "POST", "path": "/prompt", "drop": True, "times": 1}
    set_faults(server, http=[fault])
    with pytest.raises(UNREACHABLE):
        server.submit({"1": show("x")})
    assert server.get("/sandbox/executions").json() == {}


def test_fault_may_drop_only_the_answer(server: ComfyUI) -> None:
    fault = {"method": "POST", "path": "/prompt", "drop": True, "after": True, "times": 1}
    set_faults(server, http=[fault])
    prompt_id = unique()
    with pytest.raises(UNREACHABLE):
        server.submit({"1": show("x")}, prompt_id=prompt_id)
    assert server.finished(prompt_id)["status"]["completed"]


def test_fault_may_delay_only_the_answer(server: ComfyUI) -> None:
    fault = {"method": "POST", "path": "/prompt", "delay_seconds": 0.2, "after": True}
    set_faults(server, http=[fault])
    prompt_id = server.submit({"1": show("x")})
    entry = server.get(f"/history/{prompt_id}").json()[prompt_id]
    assert entry["status"]["completed"], "it was done before it was answered"
    assert server.get("/sandbox/executions").json() == {prompt_id: 1}


def test_faults_are_cleared(server: ComfyUI) -> None:
    set_faults(
        server, http=[{"method": "GET", "path": "/queue", "status": 500}], websocket="refuse"
    )
    clear_faults(server)
    assert server.get("/queue").status_code == 200
    with server.listen() as listener:
        assert not listener.closed


def test_steps_may_be_held_and_let_go(server: ComfyUI) -> None:
    def let(steps: int | None) -> None:
        rule = json.dumps(steps)
        server.http.put(f"{server.url}/sandbox/steps", data=rule, timeout=10).raise_for_status()

    client_id = unique()
    let(1)
    with server.listen(client_id) as listener:
        held = server.submit(bars_and_save(seconds=60, steps=4), client_id=client_id)
        assert listener.until_type("progress")[-1]["data"]["value"] == 1
        assert server.get(f"/history/{held}").json() == {}
        let(2)
        for step in (2, 3):
            assert listener.until_type("progress")[-1]["data"]["value"] == step
        let(1000)
        listener.until_done(held)
        let(None)
        listener.until_done(server.submit(bars_and_save(), client_id=client_id))


def test_websocket_may_be_refused(server: ComfyUI) -> None:
    set_faults(server, websocket="refuse")
    with pytest.raises(websocket.WebSocketBadStatusException), server.listen():
        pass


def test_websocket_may_be_mute(server: ComfyUI) -> None:
    client_id = unique()
    with server.listen(client_id) as listener:
        set_faults(server, websocket="mute")
        server.run({"1": show("x")}, client_id=client_id)
        set_faults(server, websocket=None)
        prompt_id = server.submit({"1": show("y")}, client_id=client_id)
        heard = listener.until_done(prompt_id)
    told = {m["data"]["prompt_id"] for m in heard if "prompt_id" in m["data"]}
    assert told == {prompt_id}, "what was said meanwhile is lost"


def test_websockets_may_be_cut(server: ComfyUI) -> None:
    with server.listen() as first, server.listen() as second:
        server.post("/sandbox/faults/cut")
        first.wait_closed()
        second.wait_closed()
    with server.listen() as again:
        assert not again.closed


def faulty(fault: str) -> dict[str, Any]:
    """A workflow whose server meets with the fault between rendering and saving."""
    images = {"images": ["1", 0], "fault": fault}
    return {
        "1": bars(seconds=0.0),
        "2": {"class_type": "SandboxFault", "inputs": images},
        "3": save("2"),
    }


def test_workflow_may_kill_its_server(fresh: StandIn, server: ComfyUI) -> None:
    with server.listen() as listener:
        server.submit(faulty("die"))
        listener.wait_closed()
    assert fresh.stop()[0] == -signal.SIGKILL


@pytest.mark.parametrize(("fault", "hears"), [("hang", False), ("hang_interruptible", True)])
def test_workflow_may_hang_its_server(
    fresh: StandIn, server: ComfyUI, fault: str, hears: bool
) -> None:
    client_id = unique()
    with server.listen(client_id) as listener:
        hung = server.submit(faulty(fault), client_id=client_id)
        listener.until(lambda message: message["data"].get("node") == "2")
        listener.take()
        after = server.submit({"1": show("x")}, prompt_id=unique())
        server.post("/interrupt", json={"prompt_id": hung})
        if hears:
            assert server.finished(hung)["status"]["status_str"] == "error"
            assert server.finished(after)["status"]["completed"]
        else:
            time.sleep(0.2)
            listener.wait_for_count(1)
            queue = server.queue()
            assert [item[1] for item in queue["queue_running"]] == [hung]
            assert [item[1] for item in queue["queue_pending"]] == [after]
            assert {message["type"] for message in listener.take()} == {"status"}
    assert fresh.stop() == (0, "")


def test_workflow_may_do_no_harm(server: ComfyUI) -> None:
    assert server.run(faulty("none"), client_id="me")["outputs"]["3"]["images"]


def test_it_remembers_executions_however_it_ended(embedded: stack.StandIn) -> None:
    ids = [unique() for _ in range(2)]
    start, port, server = time.time(), embedded.port, ComfyUI(embedded.url)
    with server.http:
        server.run(bars_and_save(seconds=0.2), prompt_id=ids[0])
        server.submit(bars_and_save(seconds=60), prompt_id=ids[1])
        server.running(ids[1])
        embedded.kill()
        assert embedded.executions() == {ids[0]: 1, ids[1]: 1}
        embedded.start()
        assert embedded.port == port
        assert server.get("/history").json() == {}
        server.submit(bars_and_save(seconds=60), prompt_id=ids[1])
        server.running(ids[1])
        assert server.get("/sandbox/executions").json() == {ids[0]: 1, ids[1]: 2}
        embedded.stop()
        done, killed, stopped = embedded.execution_log()
        embedded.start()
        assert server.get("/queue").json() == {"queue_running": [], "queue_pending": []}
    assert [done.prompt_id, killed.prompt_id, stopped.prompt_id] == [ids[0], ids[1], ids[1]]
    assert done.ended is not None
    assert stopped.ended is not None
    assert start < done.began < done.ended - 0.2 < killed.began < stopped.began < stopped.ended
    assert killed.ended is None


def test_it_can_hang_and_go_on(embedded: stack.StandIn) -> None:
    embedded.process.pause()
    with pytest.raises(requests.exceptions.ReadTimeout):
        requests.get(f"{embedded.url}/queue", timeout=0.3)
    embedded.process.resume()
    assert requests.get(f"{embedded.url}/queue", timeout=5).ok
    embedded.process.pause()
    embedded.stop()
    assert embedded.process.returncode == 0
