"""`python -m benchmarks._gateway_controller`: the rollout controller as it is, serving `_gateway_server` in place of bentos."""

from __future__ import annotations

import sys

from bentos.controller import run
from bentos.replicas import Replicas
from bentos.targets.local import LocalTarget
from lake.settings import load_settings


def command(tag: str, port: int) -> list[str]:
    return [sys.executable, "-m", "benchmarks._gateway_server", tag, str(port)]


if __name__ == "__main__":
    run(load_settings(), lambda settings: LocalTarget(settings, Replicas(settings, command)))
