"""What a worker on the real stack tells of itself, and what Flower and a dashboard make of it."""

import json
import re
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from prometheus_client.parser import text_string_to_metric_families

from sandbox.processes import ChildProcess, free_ports
from sandbox.proxy import Mode, TcpProxy
from sandbox.stack import Stack, StandIn
from tests.faults.scenes import Fleet, eventually, executing
from tests.integration.test_worker_start import CELERY, leave
from tests.stack import bars
from workers.metrics.catalog import METRICS

pytestmark = pytest.mark.integration

OBSERVE = Path(__file__).parents[2] / "deploy" / "observe"
PAGES = [
    (OBSERVE.parents[1] / "docs" / name).read_text() for name in ("observability.md", "runbook.md")
]
# Where `make` installs it: in the environment it would be a part of each worker.
FLOWER = Path(sys.prefix) / "flower"
SECONDS = 10.0

SEEDS = count(90_001)


@dataclass
class Scene:
    """A worker with its metrics, that adopted a job of a dead one before all others."""

    fleet: Fleet
    server: StandIn
    store: TcpProxy
    worker: ChildProcess
    url: str

    def page(self, path: str) -> requests.Response:
        return requests.get(self.url + path, timeout=SECONDS)

    def samples(self) -> dict[str, float]:
        """What is scraped, by name and values of labels."""
        families = text_string_to_metric_families(self.page("/metrics").text)
        return {
            " ".join((one.name, *(one.labels[key] for key in sorted(one.labels)))): one.value
            for family in families
            for one in family.samples
        }

    def told(self, path: str) -> tuple[int, dict[str, bool]]:
        """What a page of health says of each part."""
        answer = self.page(path)
        checks = answer.json()["checks"]
        return answer.status_code, {name: one["ok"] for name, one in checks.items()}


@pytest.fixture(scope="module")
def scene(stack: Stack) -> Iterator[Scene]:
    with Fleet(stack) as fleet:
        server, store = fleet.server(), fleet.proxy(stack.seaweedfs.url)
        killed = fleet.worker(server)
        # It takes longer than to kill its worker, and less than to pick it up.
        orphan = fleet.send(bars(next(SEEDS), seconds=5))
        executing(server)
        killed.kill()
        (port,) = free_ports(1)
        worker = fleet.worker(
            server,
            METRICS_PORT=str(port),
            METRICS_HOST="127.0.0.1",
            JOB_MAX_ATTEMPTS="2",
            S3_ENDPOINT_URL=store.address if "://" in store.address else f"http://{store.address}",
        )
        orphan.get(timeout=60)
        yield Scene(fleet, server, store, worker, f"http://127.0.0.1:{port}")


def since(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """What has been counted meanwhile, of histograms how often."""
    return {
        name.removeprefix("comfyfleet_"): value - before.get(name, 0.0)
        for name, value in after.items()
        if name.startswith("comfyfleet_")
        and name.partition(" ")[0].endswith(("_total", "_count"))
        and "_gpu_" not in name
        and value != before.get(name, 0.0)
    }


def test_a_job_that_was_taken_over_counts_as_that(scene: Scene) -> None:
    told = since({}, scene.samples())
    assert told.pop("duplicates_suppressed_total held", 0) >= 0
    assert told.pop("uploaded_bytes_total") > 0
    stages = ("staging", "executing", "uploading", "committing")
    assert told == {
        "jobs_total  succeeded": 1,
        "attempts_total adopt": 1,
        "redeliveries_total": 1,
        "takeovers_total": 1,
        "uploaded_files_total": 1,
        # Whoever died had it first.
        **{f"stage_duration_seconds_count {stage}": 1 for stage in stages},
    }


def test_numbers_are_exactly_what_happened(scene: Scene) -> None:
    before, ran, began = scene.samples(), len(scene.server.executions()), time.monotonic()
    send = scene.fleet.send
    good = [send(bars(next(SEEDS), seconds=0.3)) for _ in range(2)]
    bad = send(bars(next(SEEDS), mode="error"))
    full = send(bars(next(SEEDS), mode="oom"))
    results = [job.get(timeout=30) for job in good]
    sizes = [one["size_bytes"] for result in results for one in result["outputs"]]
    for job in (bad, full):
        job.get(timeout=30, propagate=False)
    again = send(bars(next(SEEDS)), good[0].id)
    eventually(lambda: scene.samples()["comfyfleet_duplicates_suppressed_total ended"] == 1)
    again.get(timeout=30)
    eventually(lambda: scene.samples()["comfyfleet_slots_used"] == 0)
    after, took = scene.samples(), time.monotonic() - began
    assert since(before, after) == {
        "jobs_total  succeeded": 2,
        "jobs_total NodeFailedError failed": 1,
        "jobs_total OutOfMemoryError failed": 1,
        "attempts_total submit": 5,
        "prompts_total unknown": 5,
        "retries_total OutOfMemoryError": 1,
        "redeliveries_total": 1,
        "duplicates_suppressed_total ended": 1,
        "uploaded_files_total": 2,
        "uploaded_bytes_total": sum(sizes),
        "stage_duration_seconds_count queued": 4,
        "stage_duration_seconds_count staging": 5,
        "stage_duration_seconds_count executing": 2,
        "stage_duration_seconds_count uploading": 2,
        "stage_duration_seconds_count committing": 2,
    }
    entries = scene.server.execution_log()[ran:]
    executed = sum(one.ended - one.began for one in entries if one.ended)
    # As the worker hears of it, which may be later than it is.
    heard = sum(sum(result["timings"]["nodes"].values()) for result in results)
    name = "comfyfleet_gpu_busy_seconds_total"
    assert heard - 0.1 < after[name] - before[name] < min(took, executed + 3.0)


def test_what_waits_is_told(scene: Scene) -> None:
    long = scene.fleet.send(bars(next(SEEDS), seconds=60, steps=600))
    eventually(lambda: scene.samples()["comfyfleet_slots_used"] == 1)
    jobs = [scene.fleet.send(bars(next(SEEDS)), options={"priority": 9}) for _ in range(4)]

    def seen() -> tuple[float, float]:
        told = scene.samples()
        return told["comfyfleet_queue_depth 9"], told["comfyfleet_queue_taken"]

    # Of short jobs more than one is taken ahead.
    eventually(lambda: sum(seen()) == 5 and seen()[1] > 1)
    told = scene.samples()
    assert told["comfyfleet_queue_depth 9"] >= 1
    assert told["comfyfleet_queue_depth 0"] == 0
    assert 0 <= told["comfyfleet_queue_oldest_age_seconds"] < 60
    assert (told["comfyfleet_dead_letters"], told["comfyfleet_slots"]) == (0, 12)
    before = told["comfyfleet_gpu_busy_seconds_total"]
    # It has not ended, and counts all the same.
    eventually(lambda: scene.samples()["comfyfleet_gpu_busy_seconds_total"] > before + 0.2)
    long.revoke(terminate=True)
    for job in jobs:
        job.get(timeout=30)
    eventually(lambda: scene.samples()["comfyfleet_jobs_total JobCancelledError cancelled"] == 1)


def test_all_that_is_documented_is_told_with_its_labels(scene: Scene) -> None:
    families = list(text_string_to_metric_families(scene.page("/metrics").text))
    told = {one.name: set(one.labels) for family in families for one in family.samples}
    for metric in METRICS:
        name = f"{metric.name}_count" if metric.kind == "histogram" else metric.name
        assert told.get(name) == set(metric.labels), metric.name
        values = {
            (key, one.labels[key])
            for family in families
            for one in family.samples
            if one.name == name
            for key in metric.labels
        }
        for key, known in metric.labels.items():
            if isinstance(known, tuple):
                assert {value for label, value in values if label == key} <= set(known)


def expressions() -> Iterator[str]:
    """Every query of dashboard and alerts."""
    dashboard = json.loads((OBSERVE / "grafana/dashboards/comfyfleet.json").read_text())
    yield from (one["expr"] for panel in dashboard["panels"] for one in panel["targets"])
    for group in yaml.safe_load((OBSERVE / "alerts.yml").read_text())["groups"]:
        yield from (rule["expr"] for rule in group["rules"])
    for page in PAGES:
        yield from re.findall(r"^```promql\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def test_dashboard_alerts_and_documents_use_what_there_is(scene: Scene) -> None:
    families = text_string_to_metric_families(scene.page("/metrics").text)
    series = [one for family in families for one in family.samples]
    names = {one.name for one in series}
    # Those that Prometheus puts on what it scrapes.
    labels = {key for one in series for key in one.labels} | {"job", "instance", "le"}
    for query in expressions():
        used = set(re.findall(r"\b(?:comfyfleet|process)_\w+", query))
        assert used <= names, query
        grouped = re.findall(r"(?:by|on|group_left) \(([^)]*)\)", query)
        matched = re.findall(r"(\w+)(?:=~|!~|!=|=)\"", query)
        assert {*matched, *re.findall(r"\w+", " ".join(grouped))} <= labels, query
        for key, kind, wanted in re.findall(r"(\w+)(=~|=)\"([^\"]*)\"", query):
            known = {one.labels[key] for one in series if key in one.labels} | {"comfyfleet"}
            values = wanted.split("|") if kind == "=~" else [wanted]
            assert known.issuperset(values), query
    for page in PAGES:
        assert set(re.findall(r"\bcomfyfleet_\w+", page)) <= names


def test_a_port_that_is_taken_ends_the_worker_with_one_sentence(scene: Scene, stack: Stack) -> None:
    port = scene.url.rpartition(":")[2]
    environment = {**stack.environment(), "METRICS_PORT": port}
    code, printed = leave([CELERY, "-A", "workers", "worker"], environment)
    assert code == 2
    assert f"METRICS_PORT: found {port}, which cannot be opened on 0.0.0.0 (Address" in printed
    assert "Traceback" not in printed


@pytest.mark.skipif(not FLOWER.exists(), reason=f"needs Flower in {FLOWER}: `make test` has it")
def test_flower_shows_our_jobs_and_revokes_them(scene: Scene) -> None:
    (port,) = free_ports(1)
    flower = ChildProcess(
        [
            CELERY,
            "--broker",
            scene.fleet.valkey.url,
            "flower",
            f"--port={port}",
            "--address=127.0.0.1",
        ],
        scene.fleet.stack.folder("flower") / "flower.log",
        env={"FLOWER_UNAUTHENTICATED_API": "true", "PYTHONPATH": str(FLOWER)},
    )
    api = f"http://127.0.0.1:{port}/api"

    def ask(method: str, path: str) -> Any:
        answer = requests.request(method, api + path, timeout=SECONDS)
        return answer.json() if answer.ok else {}

    def shows_jobs() -> bool:
        done = scene.fleet.send(bars(next(SEEDS)))
        done.get(timeout=30)
        try:
            return bool(ask("GET", f"/task/info/{done.id}"))
        except (requests.ConnectionError, requests.Timeout):
            return False

    try:
        # It asks workers every five seconds to tell of jobs, which they do not without.
        flower.wait_until(shows_jobs, 60)
        job = scene.fleet.send(bars(next(SEEDS), seconds=60, steps=600))
        shown = eventually(lambda: ask("GET", f"/task/info/{job.id}"))
        assert shown["name"] == "comfyui.run_workflow"
        eventually(lambda: ask("GET", f"/task/info/{job.id}").get("state") == "STARTED")
        # Workflows may hold secrets.
        assert "BarsRender" not in json.dumps(ask("GET", f"/task/info/{job.id}"))
        revoked = ask("POST", f"/task/revoke/{job.id}?terminate=true")
        assert job.id in revoked["message"]
        eventually(lambda: job.state == "REVOKED")
        eventually(lambda: ask("GET", f"/task/info/{job.id}").get("state") == "REVOKED")
    finally:
        flower.stop()


def test_who_is_ill_says_so_and_lives_and_gets_well(scene: Scene) -> None:
    parts = ("comfyui", "broker", "ledger", "store")
    well = dict.fromkeys((*parts, "worker"), True)
    assert scene.told("/livez") == (200, {"loop": True})
    eventually(lambda: scene.told("/readyz") == (200, well))
    (documented,) = re.findall(r"^```json\n(.*?)^```$", PAGES[0], re.MULTILINE | re.DOTALL)
    assert json.loads(documented)["checks"].keys() == well.keys()
    scene.fleet.valkey.process.pause()
    scene.store.set(Mode.BLACKHOLE)
    scene.server.kill()
    # Nobody uses the server now: it is looked at when its websocket is gone.
    eventually(lambda: scene.told("/readyz") == (503, {**well, **dict.fromkeys(parts, False)}), 60)
    assert scene.told("/livez") == (200, {"loop": True})
    told = scene.samples()
    assert [told[f"comfyfleet_reachable {part}"] for part in parts] == [0, 0, 0, 0]
    assert told["comfyfleet_circuit_open"] == 1
    # Gaps, and no old numbers.
    assert "comfyfleet_queue_taken" not in told
    assert "comfyfleet_comfyui_ram_free_bytes" not in told
    scene.fleet.valkey.process.resume()
    scene.store.set(Mode.PASS)
    scene.server.start()
    eventually(lambda: scene.told("/readyz") == (200, well), 60)
