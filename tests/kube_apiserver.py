"""A real API server of Kubernetes for tests, with etcd behind it: no scheduler, no kubelet, no controllers.

It is built from source, which takes ten minutes of two processors: tests use it where it has been built before, by
`python -m tests.kube_apiserver`, and say so where it has not. etcd is Debian's `etcd-server`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx2
import lightkube
import pytest
from lightkube.config.models import User
from lightkube.resources.apiextensions_v1 import CustomResourceDefinition
from lightkube.resources.core_v1 import Namespace

from tests.go_programs import ROOT, built
from tests.kubernetes_api import NAMESPACE, Api
from tests.kubernetes_schemas import resource_definitions
from tests.ports import free_ports

PINS = "kubernetes_server"
ADMIN_TOKEN, CONTROLLER_TOKEN = "admin-of-tests", "controller-of-tests"
CONTROLLER = f"system:serviceaccount:{NAMESPACE}:tidemill-controller"
_BUILD_WITHIN_S = 3600.0
_READY_WITHIN_S = 60.0


@contextmanager
def kube_apiserver(folder: Path) -> Iterator[Api]:
    """The API, asked by a cluster's admin. Skips the test, with the reason, where there is none."""
    program, etcd = _kept(), shutil.which("etcd")
    if not program.exists():
        pytest.skip(f"no {program.name} in the cache: python -m tests.kube_apiserver builds it")
    if etcd is None:
        pytest.skip("no 'etcd' on the PATH")
    etcd_port, peer_port, port = free_ports(3)
    (folder / "tokens.csv").write_text(
        f'{ADMIN_TOKEN},admin,admin,"system:masters"\n'
        f'{CONTROLLER_TOKEN},{CONTROLLER},controller,"system:serviceaccounts"\n'
    )
    subprocess.run(
        ["openssl", "genrsa", "-out", str(folder / "accounts.key"), "2048"], check=True, capture_output=True, timeout=60
    )
    store, url = f"http://127.0.0.1:{etcd_port}", f"https://127.0.0.1:{port}"
    with ExitStack() as stack:
        stack.enter_context(
            _process(
                folder / "etcd.log",
                *(etcd, "--data-dir", str(folder / "etcd"), "--unsafe-no-fsync"),
                *("--listen-client-urls", store, "--advertise-client-urls", store),
                *("--listen-peer-urls", f"http://127.0.0.1:{peer_port}"),
            )
        )
        server = stack.enter_context(
            _process(
                folder / "kube-apiserver.log",
                *(str(program), "--etcd-servers", store, "--bind-address", "127.0.0.1", "--secure-port", str(port)),
                *("--cert-dir", str(folder), "--token-auth-file", str(folder / "tokens.csv")),
                *("--authorization-mode", "RBAC", "--disable-admission-plugins", "ServiceAccount"),
                *("--service-account-key-file", str(folder / "accounts.key")),
                *("--service-account-signing-key-file", str(folder / "accounts.key")),
                *("--service-account-issuer", "https://tests", "--service-cluster-ip-range", "10.0.0.0/16"),
            )
        )
        api = Api(url, User(token=ADMIN_TOKEN), certificate=str(folder / "apiserver.crt"))
        _await_ready(api, server, folder / "kube-apiserver.log")
        _furnish(api.client())
        yield api


def _furnish(client: lightkube.Client) -> None:
    """The namespace, and the custom resources of the Gateway API and of Envoy Gateway."""
    client.create(Namespace.from_dict({"metadata": {"name": NAMESPACE}}))
    names = []
    for definition in resource_definitions():
        names.append(definition["metadata"]["name"])
        client.create(CustomResourceDefinition.from_dict(definition))
    for name in names:
        client.wait(CustomResourceDefinition, name, for_conditions=["Established"])


def _await_ready(api: Api, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _READY_WITHIN_S
    headers = {"Authorization": f"Bearer {api.user.token}"}
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with httpx2.Client(transport=api.transport(), trust_env=False) as client:
                if client.get(f"{api.url}/readyz", headers=headers).is_success:
                    return
        except (httpx2.HTTPError, OSError):  # the certificate is made at its start
            pass
        time.sleep(0.1)
    raise RuntimeError(f"kube-apiserver is not ready: {log.read_text()[-2000:]}")


@contextmanager
def _process(log: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT) as process:
        try:
            yield process
        finally:
            process.kill()
            process.wait(20)


def _kept() -> Path:
    """Where `built` keeps it."""
    version = hashlib.sha256((ROOT / "tests" / PINS / "go.sum").read_bytes()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tidemill-tests"
    return cache / f"{PINS}-{version}"


if __name__ == "__main__":
    print(built(PINS, "kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver", _BUILD_WITHIN_S))  # noqa: T201
    sys.exit(0 if _kept().exists() else 1)
