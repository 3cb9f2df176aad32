"""`comfyfleet check`: which of two servers that differ can run a workflow."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.command_line import Comfyfleet
from tests.faults.scenes import eventually
from tests.integration.routing_fleet import CASES, ONLY_LATE, ONLY_OLD, Case, RoutingFleet, painted
from tests.stack import bars

pytestmark = pytest.mark.integration

PAIRS = Path(__file__).parents[1] / "fixtures" / "convert"


@pytest.fixture
def comfyfleet(routing: RoutingFleet) -> Comfyfleet:
    one = Comfyfleet({"CELERY_BROKER_URL": routing.fleet.valkey.url})
    # As long as both are settling in.
    some = str(PAIRS / "default.api.json")
    eventually(lambda: len(one("check", some, "--json").json) >= len(routing.places))
    return one


@pytest.fixture
def file(tmp_path: Path) -> Callable[[object], str]:
    def written(content: object) -> str:
        path = tmp_path / "workflow.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return str(path)

    return written


@pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in CASES.items()])
def test_it_says_where_a_job_would_run(
    routing: RoutingFleet, comfyfleet: Comfyfleet, file: Callable[[object], str], case: Case
) -> None:
    ended = comfyfleet("check", file(case.workflow(1)), "--json")
    assert ended.code == (0 if case.places else 1), ended
    able = {routing.name_of(one["instance"]) for one in ended.json if one["can_run"]}
    assert able == case.places
    # Who cannot says why.
    assert all(bool(one["lacks"]) is not one["can_run"] for one in ended.json)


def test_for_people_it_is_a_table(
    routing: RoutingFleet, comfyfleet: Comfyfleet, file: Callable[[object], str]
) -> None:
    ended = comfyfleet("check", file(painted(1, ONLY_OLD)))
    assert (ended.code, ended.stderr) == (0, "")
    old, new = (
        next(row for row in ended.stdout.splitlines() if routing.places[name].server.url in row)
        for name in ("old", "new")
    )
    assert [cell.strip() for cell in old.split("│")[4:-1]] == ["yes", "yes", ""]
    *_, takes_jobs, can_run, lacks, _ = (cell.strip() for cell in new.split("│"))
    assert (takes_jobs, can_run) == ("yes", "no")
    assert lacks.startswith(
        "node 4 (CheckpointLoaderSimple), input ckpt_name: the server does not have 'old.safe"
    )
    assert ("0.3.64" in old, "0.8.0" in new) == (True, True)


def test_what_the_ui_saved_is_converted_for_each_server(
    routing: RoutingFleet, comfyfleet: Comfyfleet
) -> None:
    ended = comfyfleet("check", str(PAIRS / "default.ui.json"), "--json")
    assert ended.code == 1
    assert {routing.name_of(one["instance"]) for one in ended.json} == {"old", "new"}
    for one in ended.json:
        (lack,) = one["lacks"]
        assert lack["node_id"] == "4"
        assert "v1-5-pruned-emaonly-fp16.safetensors" in lack["message"]
    of_a_pack = comfyfleet("check", str(PAIRS / "flux1_krea_dev.ui.json"), "--json")
    assert "does not know its class" in of_a_pack.json[0]["lacks"][0]["message"]


def test_a_server_that_takes_no_jobs_is_no_help(
    routing: RoutingFleet, comfyfleet: Comfyfleet, file: Callable[[object], str]
) -> None:
    path = file(bars(1))
    assert comfyfleet("check", path).code == 0
    old = routing.places["old"].server
    old.stop()
    try:
        ended = eventually(lambda: (e := comfyfleet("check", path, "--json")).code and e)
        assert ended.code == 1
        can = {routing.name_of(o["instance"]): o["can_run"] for o in ended.json}
        assert can == {"old": True, "new": False}
        assert [o["takes_jobs"] for o in ended.json if o["can_run"]] == [False]
    finally:
        old.start()
    eventually(lambda: comfyfleet("check", path).code == 0)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{{", "is no JSON"),
        ("5", "no workflow in it"),
        ({"1": {"inputs": {}}}, "no workflow in it"),
        ({"1": {"class_type": "A"}}, "has no inputs object"),
        ({"1": {"class_type": "A", "inputs": {"x": ["2", 0]}}}, "links to node 2"),
    ],
)
def test_a_file_that_is_no_workflow_is_no_servers_fault(
    comfyfleet: Comfyfleet, file: Callable[[object], str], content: object, sentence: str
) -> None:
    assert sentence in comfyfleet.refused("check", file(content))


def test_without_a_live_server_it_says_so(routing: RoutingFleet) -> None:
    path = str(PAIRS / "default.api.json")
    nobody = Comfyfleet({"CELERY_BROKER_URL": f"{routing.fleet.valkey.url.rpartition('/')[0]}/9"})
    assert "no server is live" in nobody.refused("check", path, code=3)
    away = Comfyfleet({"CELERY_BROKER_URL": "redis://127.0.0.1:1/0"})
    assert "redis://127.0.0.1:1/0" in away.refused("check", path)


def test_what_nobody_has_told_is_not_known(
    routing: RoutingFleet, comfyfleet: Comfyfleet, file: Callable[[object], str]
) -> None:
    redis = routing.fleet.redis
    (told, *_) = redis.keys("comfyfleet:capabilities:*")
    packed_otherwise = "in the form of a later version"
    digest = told.rpartition(":")[2]
    before = redis.dump(told)
    redis.set(told, packed_otherwise, ex=3600)
    try:
        ended = comfyfleet("check", file(bars(1)), "--json")
        assert {one["digest"] for one in ended.json if one["can_run"] is None} == {digest}
    finally:
        redis.delete(told)
        redis.restore(told, 3_600_000, before)


def test_a_server_that_joins_is_there(
    routing: RoutingFleet, comfyfleet: Comfyfleet, file: Callable[[object], str]
) -> None:
    path = file(painted(1, ONLY_LATE))
    assert comfyfleet("check", path).code == 1
    routing.join("late", models=[f"checkpoints/{ONLY_LATE}"])
    try:
        eventually(lambda: comfyfleet("check", path).code == 0)
    finally:
        routing.leave("late")
