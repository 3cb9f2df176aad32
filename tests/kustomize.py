"""Kustomizations put together as `kubectl kustomize` does, as far as those in deploy/ go."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

Manifest = dict[str, Any]

_KNOWN = {
    *("apiVersion", "kind", "namespace", "resources", "components", "images", "patches"),
}


def build(folder: Path) -> list[Manifest]:
    """All manifests of a kustomization."""
    return _build(folder, [])


def _build(folder: Path, given: list[Manifest]) -> list[Manifest]:
    told = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert told.keys() <= _KNOWN, f"{folder}: this knows no {told.keys() - _KNOWN}"
    manifests = [*given, *(one for name in told.get("resources", ()) for one in _of(folder / name))]
    for name in told.get("components", ()):
        manifests = _build((folder / name).resolve(), manifests)
    for patch in told.get("patches", ()):
        _patch(patch, manifests)
    for image in told.get("images", ()):
        for container in (c for one in manifests for c in containers(one)):
            if container["image"] == image["name"]:
                container["image"] = f"{image.get('newName', image['name'])}:{image['newTag']}"
    if namespace := told.get("namespace"):
        for one in manifests:
            if one["kind"] != "Namespace":
                one["metadata"]["namespace"] = namespace
    return manifests


def _patch(patch: Manifest, manifests: list[Manifest]) -> None:
    wanted = patch["target"]["kind"], patch["target"]["name"]
    targets = [one for one in manifests if (one["kind"], one["metadata"]["name"]) == wanted]
    assert targets, f"there is no {wanted} to patch"
    for one in targets:
        for operation in yaml.safe_load(patch["patch"]):
            _apply(operation, one)


def containers(manifest: Manifest) -> list[Manifest]:
    """The containers of what makes pods, those that come first too."""
    pod = manifest.get("spec", {}).get("template", {}).get("spec", {})
    return [*pod.get("initContainers", ()), *pod.get("containers", ())]


def _of(path: Path) -> Iterator[Manifest]:
    if path.is_dir():
        yield from build(path.resolve())
    else:
        yield from yaml.safe_load_all(path.read_text())


def _apply(operation: Manifest, manifest: Manifest) -> None:
    # RFC 6902.
    match operation:
        case {"op": "remove", "path": path}:
            _take(manifest, path)
        case {"op": "move", "from": source, "path": path}:
            _put(manifest, path, _take(manifest, source))
        case {"op": "add", "path": path, "value": value}:
            _put(manifest, path, value)
        case {"op": "replace", "path": path, "value": value}:
            _take(manifest, path)
            _put(manifest, path, value)
        case _:
            raise ValueError(operation)


def _take(manifest: Any, path: str) -> Any:
    parent, name = _parent(manifest, path)
    return parent.pop(int(name) if isinstance(parent, list) else name)


def _put(manifest: Any, path: str, value: Any) -> None:
    parent, name = _parent(manifest, path)
    if isinstance(parent, list):
        parent.insert(len(parent) if name == "-" else int(name), value)
    else:
        parent[name] = value


def _parent(manifest: Any, path: str) -> tuple[Any, str]:
    *way, name = (part.replace("~1", "/").replace("~0", "~") for part in path.split("/")[1:])
    for part in way:
        manifest = manifest[int(part) if isinstance(manifest, list) else part]
    return manifest, name
