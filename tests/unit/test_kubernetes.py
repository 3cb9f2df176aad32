"""What is in deploy/kubernetes: valid by Kubernetes' own schemas, and true of the workers."""

import json
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from settings import Settings
from tests.kustomize import Manifest, build, containers
from workers.metrics import catalog

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy/kubernetes"
OVERLAYS = ("gpu", "trial")
# The first with sidecars that are not behind a gate, and the latest whose schemas are there.
VERSIONS = ("1.29", kubernetes_validate.latest_version())
KEDA = ROOT / "tests/fixtures/keda/scaledobject-2.20.2.json"
KNOWN = {field.alias for field in Settings.model_fields.values()}
# Read by others: boto3, the store's and Valkey's own containers; and what is made for COMFYUI_URL.
OTHERS = {"VALKEY_PASSWORD", "REDISCLI_AUTH", "POD_IP"}


@pytest.fixture(scope="module", params=OVERLAYS)
def manifests(request: pytest.FixtureRequest) -> list[Manifest]:
    return build(FOLDER / "overlays" / request.param)


def one(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    (found,) = (m for m in manifests if (m["kind"], m["metadata"]["name"]) == (kind, name))
    return found


def worker_and_comfyui(manifests: list[Manifest]) -> tuple[Manifest, Manifest, Manifest]:
    deployment = one(manifests, "Deployment", "worker")
    named = {c["name"]: c for c in containers(deployment)}
    return deployment["spec"]["template"]["spec"], named["worker"], named["comfyui"]


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_them(manifests: list[Manifest], version: str) -> None:
    checked = [m for m in manifests if not m["apiVersion"].startswith("keda.sh/")]
    for manifest in checked:
        kubernetes_validate.validate(manifest, version, strict=True)
    assert len(checked) >= 7


def test_the_schemas_refuse_what_is_wrong(manifests: list[Manifest]) -> None:
    wrong = json.loads(json.dumps(one(manifests, "Deployment", "worker")))
    wrong["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="livenesProbe"):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


def strict(schema: Any) -> Any:
    """The schema without what it does not name: Kubernetes drops that silently."""
    if isinstance(schema, dict):
        named = {"properties"} & schema.keys() and "additionalProperties" not in schema
        kept = {name: strict(value) for name, value in schema.items()}
        return {**kept, "additionalProperties": False} if named else kept
    return [strict(one) for one in schema] if isinstance(schema, list) else schema


def scaled_object() -> Manifest:
    return one(build(FOLDER / "overlays/gpu"), "ScaledObject", "worker")


def test_keda_takes_what_scales_the_workers() -> None:
    schema = json.loads(KEDA.read_text())
    loose = {**strict(schema["properties"]["spec"])}
    jsonschema.validate(scaled_object()["spec"], loose)
    with pytest.raises(jsonschema.ValidationError, match="minReplicas"):
        jsonschema.validate({**scaled_object()["spec"], "minReplicas": 1}, loose)


def test_workers_are_scaled_by_what_they_tell_and_never_to_none() -> None:
    told = scaled_object()["spec"]
    queries = " ".join(trigger["metadata"]["query"] for trigger in told["triggers"])
    for metric in (catalog.DEPTH, catalog.TAKEN, catalog.OLDEST):
        assert f"{metric.name}{{" in queries
    # Nobody tells when there is none; and what is being rendered counts.
    assert told["minReplicaCount"] >= 1
    deployment = one(build(FOLDER / "overlays/gpu"), "Deployment", told["scaleTargetRef"]["name"])
    assert "replicas" not in deployment["spec"]
    # By default KEDA takes no answer for a 0, and sends workers away while Prometheus is down.
    assert all(one["metadata"]["ignoreNullValues"] == "false" for one in told["triggers"])


def test_prometheus_gives_workers_the_labels_that_are_asked_for() -> None:
    told = yaml.safe_load((ROOT / "deploy/observe/prometheus-kubernetes.yml").read_text())
    (job,) = told["scrape_configs"]
    assert job["job_name"] == "comfyfleet"
    pod = one(build(FOLDER / "overlays/gpu"), "Deployment", "worker")["spec"]["template"]
    labels = pod["metadata"]["labels"]
    (kept,) = [rule for rule in job["relabel_configs"] if rule.get("action") == "keep"]
    assert kept["regex"] == f"{labels['app.kubernetes.io/name']};metrics"
    made = {rule["target_label"] for rule in job["relabel_configs"] if "target_label" in rule}
    asked = {"namespace"} | set(re.findall(r"\{(\w+)=", json.dumps(scaled_object())))
    assert asked <= made


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
@pytest.mark.parametrize("folder", [f"overlays/{name}" for name in OVERLAYS])
def test_kubectl_makes_the_same_of_them(folder: str) -> None:
    done = subprocess.run(
        ["kubectl", "kustomize", FOLDER / folder],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    theirs = {key(m): m for m in yaml.safe_load_all(done.stdout)}
    assert {key(m): m for m in build(FOLDER / folder)} == theirs


def key(manifest: Manifest) -> tuple[str, str]:
    return manifest["kind"], manifest["metadata"]["name"]


def test_every_variable_is_a_setting(manifests: list[Manifest]) -> None:
    given = set(one(manifests, "ConfigMap", "comfyfleet")["data"])
    for container in (c for m in manifests for c in containers(m)):
        given |= {variable["name"] for variable in container.get("env", ())}
    given |= {name for m in manifests if m["kind"] == "Secret" for name in m["stringData"]}
    assert {name for name in given if not name.startswith("AWS_")} - OTHERS <= KNOWN


def test_probes_and_ports_are_the_workers(manifests: list[Manifest]) -> None:
    _, worker, comfyui = worker_and_comfyui(manifests)
    settings = one(manifests, "ConfigMap", "comfyfleet")["data"]
    (metrics,) = worker["ports"]
    assert str(metrics["containerPort"]) == settings["METRICS_PORT"]
    assert worker["livenessProbe"]["httpGet"] == {"path": "/livez", "port": metrics["name"]}
    assert worker["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": metrics["name"]}
    (listening,) = comfyui["ports"]
    url = next(v["value"] for v in worker["env"] if v["name"] == "COMFYUI_URL")
    assert url == f"http://$(POD_IP):{listening['containerPort']}"
    policy = one(manifests, "NetworkPolicy", "worker")["spec"]["ingress"]
    opened = {port["port"] for rule in policy for port in rule["ports"]}
    assert opened == {listening["containerPort"], metrics["containerPort"]}


def test_jobs_have_their_grace_and_their_server_until_then(manifests: list[Manifest]) -> None:
    pod, _, comfyui = worker_and_comfyui(manifests)
    grace = float(one(manifests, "ConfigMap", "comfyfleet")["data"]["SHUTDOWN_GRACE_SECONDS"])
    assert pod["terminationGracePeriodSeconds"] >= grace + 10
    # A sidecar ends after those whose it is.
    assert comfyui in pod["initContainers"]
    assert comfyui["restartPolicy"] == "Always"


def test_before_sidecars_comfyui_waits_for_the_worker(tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text(
        yaml.safe_dump({"resources": ["base"], "components": ["plain-sidecar"]})
    )
    for name, source in (("base", "base"), ("plain-sidecar", "components/plain-sidecar")):
        shutil.copytree(FOLDER / source, tmp_path / name)
    manifests = build(tmp_path)
    pod, _, comfyui = worker_and_comfyui(manifests)
    kubernetes_validate.validate(one(manifests, "Deployment", "worker"), VERSIONS[0], strict=True)
    assert "initContainers" not in pod
    assert comfyui in pod["containers"]
    assert comfyui["lifecycle"]["preStop"]["exec"]


def worker_url(manifests: list[Manifest], address: str) -> str:
    """What a worker in a pod with this address is told."""
    _, worker, _ = worker_and_comfyui(manifests)
    url = next(v["value"] for v in worker["env"] if v["name"] == "COMFYUI_URL")
    return str(url).replace("$(POD_IP)", address)


def test_pods_may_have_ipv6_addresses(tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text(
        yaml.safe_dump({"resources": ["base"], "components": ["ipv6", "plain-sidecar"]})
    )
    shutil.copytree(FOLDER / "base", tmp_path / "base")
    for name in ("ipv6", "plain-sidecar"):
        shutil.copytree(FOLDER / "components" / name, tmp_path / name)
    manifests = build(tmp_path)
    kubernetes_validate.validate(one(manifests, "Deployment", "worker"), VERSIONS[0], strict=True)
    _, _, comfyui = worker_and_comfyui(manifests)
    assert "--listen=::" in comfyui["args"]
    assert "--listen=0.0.0.0" not in comfyui["args"]
    told = one(manifests, "ConfigMap", "comfyfleet")["data"]
    url = worker_url(manifests, "fd00::5")
    settings = Settings(COMFYUI_URL=url, METRICS_HOST=told["METRICS_HOST"])
    assert (settings.comfyui_url, settings.metrics_host) == ("http://[fd00::5]:8188", "::")


def test_an_ipv6_address_without_the_component_is_named(manifests: list[Manifest]) -> None:
    with pytest.raises(ValueError, match="IPv6 address in brackets"):
        Settings(COMFYUI_URL=worker_url(manifests, "fd00::5"))
    assert Settings(COMFYUI_URL=worker_url(manifests, "10.0.0.5")).comfyui_url


def test_comfyui_is_told_to_end_once_the_worker_is_gone(manifests: list[Manifest]) -> None:
    _, worker, comfyui = worker_and_comfyui(manifests)
    (metrics,) = (port for port in worker["ports"] if port["name"] == "metrics")
    python, flag, code = comfyui["lifecycle"]["preStop"]["exec"]["command"]
    address = f'("127.0.0.1", {metrics["containerPort"]})'
    assert (python, flag, code.count(address)) == ("python", "-c", 1)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        here = code.replace(address, repr(listening.getsockname()))
        hook = subprocess.Popen([sys.executable, "-c", here])
        # It has asked, and been answered.
        for _ in range(2):
            listening.accept()[0].close()
        assert hook.poll() is None
    assert hook.wait(10) == 0


def test_nothing_runs_as_root_or_by_a_moving_tag(manifests: list[Manifest]) -> None:
    pods = [m["spec"]["template"]["spec"] for m in manifests if containers(m)]
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["automountServiceAccountToken"] is False
    for container in (c for m in manifests for c in containers(m)):
        name, _, tag = container["image"].partition(":")
        assert tag not in ("", "latest"), name
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"]["memory"]
