"""Manifests against the schemas of Kubernetes, of the Gateway API and of Envoy Gateway, as those publish them.

The schemas come with Go modules, which `tests/kubernetes_apis/` pins by hash; what is needed of them is kept in the
user's cache. They are structural: what the API server checks beside (CEL rules) is checked by a real one, if at all.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.go_programs import ROOT

PINS = ROOT / "tests" / "kubernetes_apis"
# Of each module: its folder of schemas, and which files of it.
MODULES = {
    "k8s.io/kubernetes": ("api/openapi-spec/v3", "*_openapi.json"),
    "sigs.k8s.io/gateway-api": ("config/crd/standard", "gateway.networking.k8s.io_*.yaml"),
    "github.com/envoyproxy/gateway": ("charts/gateway-crds-helm/templates/generated", "*.yaml"),
}
DEFINITIONS = "definitions.json"
_WITHIN_S = 120

Json = dict[str, Any]


@functools.cache
def schema_folder() -> Path | str:
    """Where the schemas lie, or why they cannot be had."""
    pins = (PINS / "go.sum").read_text()
    kept = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tidemill-tests"
    folder = kept / f"kubernetes-schemas-{hashlib.sha256(pins.encode()).hexdigest()[:16]}"
    if folder.exists():
        return folder
    if shutil.which("go") is None:
        return "schemas of Kubernetes cannot be had: no 'go' on the PATH"
    partial = folder.with_name(f"{folder.name}.{os.getpid()}")
    try:
        for module, (inside, pattern) in MODULES.items():
            version = next(line.split()[1] for line in pins.splitlines() if line.startswith(f"{module} "))
            command = ["go", "mod", "download", "-json", f"{module}@{version}"]
            told = subprocess.run(command, cwd=PINS, check=True, capture_output=True, text=True, timeout=_WITHIN_S)
            for file in (Path(json.loads(told.stdout)["Dir"]) / inside).glob(pattern):
                target = partial / module / file.name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)
        (partial / DEFINITIONS).write_text(json.dumps(list(_read_definitions(partial))))  # YAML takes seconds to read
        partial.replace(folder)
    except (OSError, subprocess.SubprocessError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        words = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        return f"schemas of Kubernetes cannot be had: {words[-1] if words else type(error).__name__}"
    return folder


def _read_definitions(folder: Path) -> Iterator[Json]:
    for file in sorted(folder.rglob("*.yaml")):
        lines = [line for line in file.read_text().splitlines() if not line.startswith("{{")]  # Helm's
        for document in yaml.safe_load_all("\n".join(lines)):
            if document and document["kind"] == "CustomResourceDefinition":
                yield document


def schemas() -> Path:
    """Skips the test, with the reason, where the schemas cannot be had."""
    found = schema_folder()
    if isinstance(found, str):
        pytest.skip(found)
    return found


def resource_definitions() -> list[Json]:
    """The custom resource definitions of the Gateway API (standard channel) and of Envoy Gateway."""
    told: list[Json] = json.loads((schemas() / DEFINITIONS).read_text())
    return told


def check(manifest: Json) -> None:
    """Raises jsonschema.ValidationError for a manifest that the schemas do not know, unknown fields included."""
    group, _, version = manifest["apiVersion"].rpartition("/")
    error = jsonschema.exceptions.best_match(_validator(group, version, manifest["kind"]).iter_errors(manifest))
    if error is not None:
        raise error


@functools.cache
def _validator(group: str, version: str, kind: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(_schema(group, version, kind))


def _schema(group: str, version: str, kind: str) -> Json:
    name = f"apis__{group}__{version}_openapi.json" if group else f"api__{version}_openapi.json"
    file = schemas() / "k8s.io/kubernetes" / name
    if file.exists():
        components = _strict(json.loads(file.read_text())["components"])
        told = {"group": group, "version": version, "kind": kind}
        for title, schema in components["schemas"].items():
            if told in schema.get("x-kubernetes-group-version-kind", ()):
                return {"$ref": f"#/components/schemas/{title}", "components": components}
    for definition in resource_definitions():
        spec = definition["spec"]
        for served in spec["versions"] if (spec["group"], spec["names"]["kind"]) == (group, kind) else ():
            if served["name"] == version:
                return _strict(served["schema"]["openAPIV3Schema"])
    raise LookupError(f"no schema of {group}/{version} {kind}")


def _strict(schema: Any) -> Any:
    """The same, refusing unknown fields wherever it lists the known ones; `nullable` as JSON Schema says it."""
    if isinstance(schema, list):
        return [_strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    told = {key: _strict(value) for key, value in schema.items()}
    properties = told.get("properties")
    is_open = told.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in told
    if isinstance(properties, dict) and told.get("type") == "object" and not is_open:
        told["additionalProperties"] = False
    if told.get("x-kubernetes-int-or-string"):
        told.pop("type", None)
    if told.get("nullable") is True and isinstance(told.get("type"), str):
        told["type"] = [told["type"], "null"]
    return told
