"""Prometheus, its alerts, Grafana and Flower, as the compose file has them."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.acceptance

ROOT = Path(__file__).parents[2]
OBSERVE = ROOT / "deploy" / "observe"
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
ALERTS = {
    rule["alert"]: rule
    for group in yaml.safe_load((OBSERVE / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
}
DASHBOARD = json.loads((OBSERVE / "grafana/dashboards/comfyfleet.json").read_text())
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()


@pytest.mark.skipif(not shutil.which("promtool"), reason="needs promtool (apt: prometheus)")
@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "rules", "alerts.yml"),
        ("check", "config", "prometheus.yml"),
        ("test", "rules", "alerts_test.yml"),
    ],
    ids=" ".join,
)
def test_promtool_finds_nothing_wrong(arguments: tuple[str, ...]) -> None:
    done = subprocess.run(
        ["promtool", *arguments], cwd=OBSERVE, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_seen_to_fire() -> None:
    tests = yaml.safe_load((OBSERVE / "alerts_test.yml").read_text())["tests"]
    cases = [case for one in tests for case in one["alert_rule_test"]]
    assert {case["alertname"] for case in cases if case.get("exp_alerts")} == set(ALERTS)


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_leads_to_its_section(alert: str) -> None:
    rule = ALERTS[alert]
    assert rule["labels"]["severity"] in ("critical", "warning")
    page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    assert (page, anchor) == ("docs/runbook.md", alert.lower())
    section = re.search(rf"^### {alert}$(.*?)(?=^##|\Z)", RUNBOOK, re.MULTILINE | re.DOTALL)
    assert section, "no section"
    for part in ("**Means**", "**Look**", "**Do**"):
        assert part in section[1], part


def test_no_section_is_left_of_an_alert_that_is_gone() -> None:
    assert set(re.findall(r"^### (Comfyfleet\w+)$", RUNBOOK, re.MULTILINE)) == set(ALERTS)


def test_workers_are_scraped_where_they_listen() -> None:
    (job,) = yaml.safe_load((OBSERVE / "prometheus.yml").read_text())["scrape_configs"]
    (found,) = job["dns_sd_configs"]
    assert found["names"] == ["worker"]
    assert str(found["port"]) == SERVICES["worker"]["environment"]["METRICS_PORT"]


def mounts(service: str) -> dict[str, Path]:
    """What a service has of this folder, by where it has it."""
    pairs = [one.split(":")[:2] for one in SERVICES[service]["volumes"] if one.startswith("./")]
    return {inside: ROOT / outside for outside, inside in pairs}


def test_the_profile_has_what_it_needs() -> None:
    observing = [name for name, one in SERVICES.items() if one.get("profiles") == ["observe"]]
    assert observing == ["prometheus", "grafana", "flower"]
    for name in observing:
        service = SERVICES[name]
        assert "container_name" not in service
        # On this host alone: none of them asks everybody who they are.
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        if "image" in service:
            assert re.fullmatch(r"[\w/]+:v?\d+\.\d+\.\d+", service["image"])
            assert all(path.exists() for path in mounts(name).values())


def test_flower_watches_the_broker_of_the_workers() -> None:
    brokers = [SERVICES[one]["environment"]["CELERY_BROKER_URL"] for one in ("flower", "worker")]
    assert brokers[0] == brokers[1]
    assert not any("broker" in word for word in SERVICES["flower"]["command"])


def test_grafana_finds_its_dashboard_and_its_data() -> None:
    provisioning = OBSERVE / "grafana" / "provisioning"
    (provider,) = yaml.safe_load((provisioning / "dashboards/comfyfleet.yml").read_text())[
        "providers"
    ]
    folder = mounts("grafana")[provider["options"]["path"]]
    assert (folder / "comfyfleet.json").exists()
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yml").read_text())[
        "datasources"
    ]
    (variable,) = DASHBOARD["templating"]["list"]
    assert variable["current"]["value"] == source["uid"]
    assert source["url"] == "http://prometheus:9090"


def test_panels_are_of_one_source_and_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place: dict[str, Any] = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert all(x < 24 for x, _ in cells)
        taken |= cells
        for one in (panel, *panel["targets"]):
            assert one["datasource"]["uid"] == "${datasource}"
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
