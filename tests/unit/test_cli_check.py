"""What `comfyfleet check` makes of what it has found."""

import json

import pytest

from cli.check import Finding, exit_code, show_findings
from workers.ledger.servers import Device, Server
from workers.routing.lacks import Lack


def server(place: str = "http://gpu:8188", *, takes_jobs: bool = True) -> Server:
    return Server(
        place=place,
        instance="http://gpu:8188",
        worker="worker@host",
        version="0.8.0",
        digest="d",
        takes_jobs=takes_jobs,
        devices=(
            Device(
                name="cuda:0 [b]GPU[/b]",
                kind="cuda",
                vram_total_bytes=24 * 2**30,
                vram_free_bytes=20 * 2**30,
            ),
            Device(name="cpu", kind="cpu"),
        ),
    )


LACKS = (Lack("4", "node 4 lacks a file"), Lack("5", "node 5 lacks a \x1b[31mbox", is_sure=False))
CAN, CANNOT, UNKNOWN = Finding(server(), ()), Finding(server(), LACKS), Finding(server(), None)
CAN_LATER = Finding(server(takes_jobs=False), ())


@pytest.mark.parametrize(
    ("findings", "code"),
    [
        ([CAN], 0),
        ([CANNOT, UNKNOWN, CAN], 0),
        ([CANNOT], 1),
        ([UNKNOWN], 1),
        ([CAN_LATER, CANNOT], 1),
        ([], 3),
    ],
)
def test_the_exit_code_says_whether_a_job_would_run(findings: list[Finding], code: int) -> None:
    assert exit_code(findings) == code


def test_people_get_a_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    show_findings([CAN, CANNOT, UNKNOWN, CAN_LATER], as_json=False)
    printed = capsys.readouterr().out
    rows = [[cell.strip() for cell in row.split("│")[1:-1]] for row in printed.splitlines()]
    able, unable, rest, unknown, later = (row for row in rows if row)
    devices = "cuda:0 [b]GPU[/b] (20.0 of 24.0 GiB free); cpu"
    assert able == ["http://gpu:8188", "0.8.0", devices, "yes", "yes", ""]
    assert unable[3:] == ["yes", "no", "node 4 lacks a file"]
    assert rest[5] == "node 5 lacks a  [31mbox (the node may see it otherwise)"
    assert unknown[3:] == ["yes", "not known", ""]
    assert later[3:5] == ["no", "yes"]


def test_programs_get_json(capsys: pytest.CaptureFixture[str]) -> None:
    show_findings([CAN, CANNOT, UNKNOWN], as_json=True)
    can, cannot, unknown = json.loads(capsys.readouterr().out)
    assert (can["can_run"], can["lacks"]) == (True, [])
    assert Server.model_validate({k: v for k, v in can.items() if k not in ("can_run", "lacks")})
    assert cannot["can_run"] is False
    assert cannot["lacks"][0] == {
        "node_id": "4",
        "message": "node 4 lacks a file",
        "is_sure": True,
        "node_class": "",
        "model": "",
    }
    assert (unknown["can_run"], unknown["lacks"]) == (None, None)


def test_no_server_is_said_beside_what_programs_read(capsys: pytest.CaptureFixture[str]) -> None:
    show_findings([], as_json=True)
    printed = capsys.readouterr()
    assert json.loads(printed.out) == []
    assert printed.err.startswith("comfyfleet: no server is live")
    show_findings([], as_json=False)
    assert capsys.readouterr().out == ""
